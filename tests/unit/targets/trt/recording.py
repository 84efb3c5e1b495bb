"""What the recording stand-in is made of: the world that tests set, enforced types, natively made objects."""

import enum
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, TypeVar

T = TypeVar("T")


class Disorder(AssertionError):
    """Calls in an order, or with values, that TensorRT's documentation forbids."""


@dataclass(kw_only=True)
class World:
    """What there is and what happens, set by a test before and read by it after.

    Attributes:
        version: of TensorRT.
        capability: of the GPU.
        calls: every call and assignment, as `Class.member`, in order.
        flags: builder flags of the latest build.
        settings: assignments to the latest builder configuration.
        parser_errors: node, name, operator and description of what the parser refuses.
        build_error: logged, with no engine built.
        cache_refused: how a timing cache is refused: `none`, `false`, `logged`; anything else takes it.
        layers: what the inspector says.
        handles: streams that were enqueued on.
        refit_error: what the refitter's parser complains about.
        context_refused: whether there is no memory for execution contexts.
        start_error: logged when TensorRT is to start, which it then does not.
        captured: launches of the CUDA graph that is being captured.
    """

    version: str = "11.4.0.106"
    capability: tuple[int, int] = (9, 0)
    calls: list[str] = field(default_factory=list)
    flags: set[str] = field(default_factory=set)
    settings: dict[str, Any] = field(default_factory=dict)
    parser_errors: list[tuple[int, str, str, str]] = field(default_factory=list)
    build_error: str | None = None
    cache_refused: str = ""
    layers: str = '{"Layers": []}'
    handles: list[int] = field(default_factory=list)
    refit_error: str | None = None
    context_refused: bool = False
    start_error: str | None = None
    captured: list[Callable[[], None]] | None = None


world = World()

LIBRARY = "tests.unit.targets.trt.stand_in"

KINDS: dict[str, Any] = {}
"""Classes by the name that annotations use."""


def require(condition: object, text: str) -> None:
    if not condition:
        raise Disorder(text)


def _fits(value: object, wanted: str) -> bool:
    """Whether pybind11 would take a value for a parameter of that type."""
    kinds: dict[str, Any] = {
        "int": (int, enum.IntEnum),
        "str": str,
        "bool": bool,
        "Buffer": (bytes, bytearray, memoryview),
        "Dims": (tuple, list),
        "tuple": tuple,
        "str | None": (str, type(None)),
    }
    kind = kinds.get(wanted) or KINDS[wanted]
    if kind is int and isinstance(value, bool):
        return False
    return isinstance(value, kind)


def _typed(owner: str, function: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(function)

    @wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        world.calls.append(f"{owner}.{function.__name__}")
        given = signature.bind(*args, **kwargs)
        for name, value in list(given.arguments.items())[1:]:
            wanted = str(signature.parameters[name].annotation)
            if not _fits(value, wanted):
                raise TypeError(
                    f"{owner}.{function.__name__}: {name}: expected {wanted}, got {type(value).__name__}"
                )
        return function(*args, **kwargs)

    return checked


class Setting:
    """A property: its type, and what it is before it is set."""

    def __init__(self, kind: str, value: Any = None) -> None:
        self.kind, self.value = kind, value

    def __set_name__(self, owner: type, name: str) -> None:
        self.owner, self.name = owner.__name__, name

    def __get__(self, instance: Any, owner: type) -> Any:
        return self if instance is None else instance.__dict__.get(self.name, self.value)

    def __set__(self, instance: Any, value: Any) -> None:
        world.calls.append(f"{self.owner}.{self.name}")
        if not _fits(value, self.kind):
            raise TypeError(f"{self.owner}.{self.name}: expected {self.kind}, got {type(value).__name__}")
        instance.__dict__[self.name] = value
        world.settings[self.name] = value


class Native:
    """A class of the bindings: typed methods, and no attributes but its own."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if cls.__module__ != LIBRARY:
            return  # a subclass that the package defines
        for name, member in list(vars(cls).items()):
            if inspect.isfunction(member) and (name == "__init__" or not name.startswith("_")):
                setattr(cls, name, _typed(cls.__name__, member))

    def __setattr__(self, name: str, value: Any) -> None:
        known = name.startswith("_") or isinstance(getattr(type(self), name, None), Setting)
        if not known and type(self).__module__ == LIBRARY:
            raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")
        object.__setattr__(self, name, value)


def make(kind: type[T], **state: Any) -> T:
    """An object that only the library makes."""
    made = object.__new__(kind)
    made.__dict__.update({f"_{name}": value for name, value in state.items()})
    return made
