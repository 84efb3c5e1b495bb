"""The stand-in's classes against the real bindings': what is missing there, or has another signature."""

import enum
import inspect
import re
from collections.abc import Iterator
from typing import Any

from tests.unit.targets.trt.recording import Native, Setting

SPELLINGS = {
    "tensorrt_bindings.tensorrt.": "",
    "tensorrt_rtx_bindings.tensorrt_rtx.": "",
    "typing_extensions.": "",
    "typing.SupportsInt": "int",
    "nvonnxparser::IParserError": "ParserError",
    ": buffer": ": Buffer",
    "List[": "list[",
}

Facts = dict[str, dict[str, Any]]


def differences(classes: dict[str, type], facts: Facts) -> list[str]:
    """What the stand-in has and the bindings have not, or not like that; empty if they agree."""
    return [text for name, kind in classes.items() for text in _class(name, kind, facts)]


def library_classes(module: Any) -> dict[str, type]:
    """The classes that stand for the library's, nested ones under both names."""
    found = {}
    for name, kind in vars(module).items():
        if inspect.isclass(kind) and kind.__module__ == module.__name__:
            found[name] = kind
            nested = {
                key: value for key, value in vars(kind).items() if inspect.isclass(value) and key[0] != "_"
            }
            found.update({f"{name}.{key}": value for key, value in nested.items()})
    return found


def used_members(module: Any) -> set[str]:
    """`Class.member` of every method and property of the stand-in."""
    return {
        f"{name}.{member}"
        for name, kind in library_classes(module).items()
        if issubclass(kind, Native)
        for member, value in vars(kind).items()
        if _is_public(member, value)
    }


def _class(name: str, kind: type, facts: Facts) -> Iterator[str]:
    real = facts.get(name)
    if real is None:
        yield f"{name}: there is no such class"
        return
    if issubclass(kind, enum.Enum):
        for each in kind:  # the numbers differ between versions, and are read from the library
            if real.get(each.name) != {"kind": "value"}:
                yield f"{name}.{each.name}: there is no such value"
        return
    for member, value in vars(kind).items():
        if _is_public(member, value):
            yield from _member(f"{name}.{member}", value, real.get(member))


def _is_public(member: str, value: Any) -> bool:
    callable_or_property = inspect.isfunction(value) or isinstance(value, property | Setting)
    return callable_or_property and (member == "__init__" or not member.startswith("_"))


def _member(name: str, value: Any, real: dict[str, Any] | None) -> Iterator[str]:
    if real is None:
        yield f"{name}: there is no such member"
    elif isinstance(value, property | Setting):
        if real["kind"] != "property" or (isinstance(value, Setting) and not real["settable"]):
            yield f"{name}: expected a property, got {real}"
    else:
        own = _own_signature(value)
        if not any(_fits(own, _real_signature(*each)) for each in real.get("signatures", [])):
            yield f"{name}: {own} is none of {real}"


Signature = tuple[tuple[str, ...], str]


def _fits(own: Signature, real: Signature) -> bool:
    """Equal, but for further parameters that have defaults."""
    parameters, returns = own
    further = real[0][len(parameters) :]
    return (
        real[0][: len(parameters)] == parameters
        and returns == real[1]
        and all(" = " in each for each in further)
    )


def _own_signature(function: Any) -> Signature:
    signature = inspect.signature(function)
    parameters = [
        f"{name}: {each.annotation}" + ("" if each.default is each.empty else f" = {each.default}")
        for name, each in list(signature.parameters.items())[1:]
    ]
    return tuple(parameters), str(signature.return_annotation)


def _real_signature(parameters: str, returns: str) -> Signature:
    """Without `self`; no parameter that the stand-in has holds a comma in its type."""
    for real, short in SPELLINGS.items():
        parameters, returns = parameters.replace(real, short), returns.replace(real, short)
    _, *others = re.split(r", (?=\w+: )", parameters)
    return tuple(others), returns
