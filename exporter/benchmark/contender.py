"""What is raced: a model in one of its forms, at one batch size, as plain data that a worker process can be told.

First step of the room: in, the files of a bundle and a model's name; out, a `Contender` for `race`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from exporter.errors import InternalError
from exporter.models import ModelRequest
from exporter.targets import TensorSpec

Kind = Literal["module", "compiled", "program", "engine"]
"""Eager PyTorch; `torch.compile` of it; a saved `ExportedProgram` in eager PyTorch; an emitted artifact."""

_NEEDS: dict[Kind, str] = {
    "module": "model",
    "compiled": "model",
    "program": "program",
    "engine": "engine",
}


@dataclass(frozen=True, kw_only=True)
class EngineFile:
    """An artifact on disk: which target runs it, and under which names.

    Attributes:
        target: its name.
        path: of the artifact's main file.
        input: the images.
        outputs: in order.
        options: of the target, as plain values; empty for its defaults.
    """

    target: str
    path: Path
    input: TensorSpec
    outputs: tuple[TensorSpec, ...]
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One form of a model at one batch size.

    Attributes:
        name: for people; unique within a batch size (`eager dense`, `r8 onnx`).
        kind: what runs it, and so which of `model`, `program` and `engine` is set.
        batch: images per call.
        target: the engine's target; None for PyTorch.
        reduced: whether tokens are merged.
        executed_macs: multiply-accumulates of one image.
        model: what `module` and `compiled` load.
        program: what `program` loads, written by `torch.export.save`.
        engine: what `engine` loads.
        input: its own input batch (`.npy`), where it takes another type than the others do; None for theirs.
        cuda_graph: whether calls are replays of a captured CUDA graph; for PyTorch on CUDA.
    """

    name: str
    kind: Kind
    batch: int
    reduced: bool
    executed_macs: int
    target: str | None = None
    model: ModelRequest | None = None
    program: Path | None = None
    engine: EngineFile | None = None
    input: Path | None = None
    cuda_graph: bool = False

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise InternalError(f"contender {self.name} has the unknown kind {self.kind}")
        if getattr(self, _NEEDS[self.kind]) is None:
            raise InternalError(f"contender {self.name} is a {self.kind} without its {_NEEDS[self.kind]}")
        if self.batch < 1 or self.executed_macs < 1:
            raise InternalError(f"contender {self.name} has no images or no work")

    @property
    def label(self) -> str:
        """The name with the batch size, as messages print it."""
        return f"{self.name}, batch {self.batch}"

    @property
    def file(self) -> Path | None:
        """The program's or artifact's file; None where the model is built by its library."""
        return self.engine.path if self.engine is not None else self.program


def to_tree(contender: Contender) -> dict[str, Any]:
    """A contender as JSON values; `contender_from` reads them back."""
    return {key: _plain(value) for key, value in asdict(contender).items()}


def contender_from(tree: dict[str, Any]) -> Contender:
    """The contender that `to_tree` wrote."""
    model, engine = tree["model"], tree["engine"]
    return Contender(
        **{
            **tree,
            "model": _request(model) if model is not None else None,
            "engine": _engine(engine) if engine is not None else None,
            **{key: Path(tree[key]) if tree[key] is not None else None for key in ("program", "input")},
        }
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value.absolute())
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value


def _request(tree: dict[str, Any]) -> ModelRequest:
    options = {name: _frozen(value) for name, value in tree["options"].items()}
    return ModelRequest(**{**tree, "image_size": _frozen(tree["image_size"]), "options": options})


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _engine(tree: dict[str, Any]) -> EngineFile:
    return EngineFile(
        target=tree["target"],
        path=Path(tree["path"]),
        input=_spec(tree["input"]),
        outputs=tuple(_spec(each) for each in tree["outputs"]),
        options=tree["options"],
    )


def _spec(tree: dict[str, Any]) -> TensorSpec:
    return TensorSpec(name=tree["name"], dtype=tree["dtype"], shape=tuple(tree["shape"]))
