"""What is raced: a model in one of its forms, at one batch size, as plain data that a worker process can be told.

In: the files of a bundle, or a model's name. Out: a `Contender` for `race`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from exporter.errors import InternalError
from exporter.forms import Precision
from exporter.models import ModelRequest
from exporter.records import Router
from exporter.targets import Signature

Kind = Literal["module", "compiled", "program", "engine"]
"""Eager PyTorch; `torch.compile` of a model or a program; a saved `ExportedProgram` in eager PyTorch; an artifact."""

_NEEDS: dict[Kind, tuple[str, ...]] = {
    "module": ("model",),
    "compiled": ("model", "program"),
    "program": ("program",),
    "engine": ("engine",),
}


@dataclass(frozen=True, kw_only=True)
class EngineFile:
    """An artifact on disk: which target runs it, and under which names.

    Attributes:
        target: its name.
        path: of the artifact's main file.
        signature: of the model.
        options: of the target, as plain values; empty for its defaults.
    """

    target: str
    path: Path
    signature: Signature
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One form of a model at one batch size.

    Attributes:
        name: for people; unique within a batch size (`eager dense`, `r8 onnx`).
        kind: what runs it; it decides which of `model`, `program` and `engine` is set.
        batch: images per call.
        form: which form of the model it runs, `dense` or what distinguishes a reduced one, such as `tome-r8`.
        target: the engine's target; None for PyTorch.
        reduced: whether tokens are merged.
        executed_macs: multiply-accumulates of one image.
        model: what `module` and `compiled` load.
        program: what `program`, or else `compiled`, loads; written by `torch.export.save`.
        engine: what `engine` loads.
        input: its own input batch (`.npy`), where it takes another type than the others do; None for theirs.
        cuda_graph: whether calls are replays of a captured CUDA graph; for PyTorch on CUDA.
        cheaper: of a ladder, the engines that are asked before `engine`, cheapest first.
        threshold: of a ladder, least value at which an answer of theirs is kept.
        router: of a ladder, what that value is.
        precision: that a model's weights and images are cast to; programs and engines have their own.
    """

    name: str
    kind: Kind
    batch: int
    reduced: bool
    executed_macs: int
    form: str = "dense"
    target: str | None = None
    model: ModelRequest | None = None
    program: Path | None = None
    engine: EngineFile | None = None
    input: Path | None = None
    cuda_graph: bool = False
    cheaper: tuple[EngineFile, ...] = ()
    threshold: float | None = None
    router: Router = "confidence"
    precision: Precision = "fp32"

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise InternalError(f"contender {self.name} has the unknown kind {self.kind}")
        needs = _NEEDS[self.kind]
        if all(getattr(self, each) is None for each in needs):
            raise InternalError(f"contender {self.name} is a {self.kind} without its {' or '.join(needs)}")
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
