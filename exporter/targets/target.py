"""What a target is: emit a rewritten program, run what was emitted.

In: a `RewrittenProgram`. Out: an `Artifact` in a folder, and a `Runner` over it. Whoever only runs artifacts imports
no torch.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from exporter.rewrite import RewrittenProgram

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """An input or output: its name, numpy dtype name, and shape, where a free batch axis is the word "batch"."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, kw_only=True)
class EmitRequest:
    """What the emitted artifact says about itself.

    Attributes:
        input: the model's input.
        outputs: the model's outputs; the program's further results are matches.
        metadata: key and value texts to embed where the format has a place for them.
    """

    input: TensorSpec
    outputs: tuple[TensorSpec, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)


class Runner(Protocol):
    """Runs an artifact on any number of images; picklable; the engine is loaded on first use."""

    def __call__(self, images: Array) -> dict[str, Array]:
        """Outputs by name, as many rows as images."""
        ...

    def load(self) -> None:
        """Load the engine now, which the first call does otherwise."""
        ...


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """What a target wrote.

    Attributes:
        target: its name.
        file: the main file's name in the folder.
        opset: of an ONNX model.
        runner: over the file just written.
        probe: runs the same program and returns its matches as well, or None where a target cannot; never shipped.
    """

    target: str
    file: str
    opset: int | None
    runner: Runner
    probe: Callable[[Array], dict[str, Array]] | None


class Target(Protocol):
    """One engine. A target is a module's `TARGET`, found through the table in `exporter.targets`."""

    name: str
    precisions: tuple[str, ...]

    def check_available(self) -> None:
        """Raise a TargetUnavailableError that says what is missing and how to get it."""
        ...

    def describe(self) -> str:
        """What runs the artifacts here, for people: library, version, devices."""
        ...

    def emit(self, program: "RewrittenProgram", request: EmitRequest, folder: Path) -> Artifact:
        """Write the artifact into `folder`."""
        ...

    def open(self, path: Path, input: TensorSpec, outputs: tuple[TensorSpec, ...]) -> Runner:
        """A runner over an artifact written earlier."""
        ...
