"""What a target is: emit a rewritten program, run what was emitted.

In: a `RewrittenProgram`. Out: an `Artifact` in a folder, and a `Runner` over it. Whoever only runs artifacts imports
no torch.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from exporter.forms import Forms, Precision

if TYPE_CHECKING:
    from exporter.rewrite import RewrittenProgram

Array = np.ndarray[Any, np.dtype[Any]]

Details = Mapping[str, Any]
"""JSON values for the manifest."""

Progress = Callable[[int, int], None]
"""Told how many steps of how many are done."""


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """An input or output: its name, numpy dtype name, and shape, where a free batch axis is the word "batch"."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, kw_only=True)
class EmitRequest:
    """What is emitted beside the program itself.

    Attributes:
        input: the model's input.
        outputs: the model's outputs; the program's further results are matches.
        metadata: key and value texts to embed where the format has a place for them.
        precision: that the engine computes in. The program is typed already, but for `int8`, where the target
            quantises a program in fp32.
        forms: the form that the program was rewritten in; a target's part is the attention.
        options: of the target's own `options` type.
        calibration: images as the engine takes them (n, ...), for `int8`.
        progress: told how far a long build is.
    """

    input: TensorSpec
    outputs: tuple[TensorSpec, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)
    precision: Precision = "fp32"
    forms: Forms = field(default_factory=Forms)
    options: Any
    calibration: Array | None = None
    progress: Progress | None = None


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
        built_from: what identifies the engine where its own bytes are not reproducible: hashes, options, versions.
        details: what the build found out, such as how many attentions were fused.
    """

    target: str
    file: str
    opset: int | None = None
    runner: Runner
    probe: Callable[[Array], dict[str, Array]] | None = None
    built_from: Mapping[str, str] = field(default_factory=dict)
    details: Details = field(default_factory=dict)


class Target(Protocol):
    """One engine. A target is a module's `TARGET`, found through the table in `exporter.targets`."""

    name: str
    precisions: tuple[Precision, ...]
    options: type
    """Its own choices: a frozen dataclass of plain values, all with defaults."""
    forms: Forms
    """The form that was measured to be fastest."""

    def check_available(self) -> None:
        """Raise a TargetUnavailableError that says what is missing and the one line that installs it."""
        ...

    def describe(self) -> str:
        """What runs the artifacts here, for people: library, version, devices."""
        ...

    def emit(self, program: "RewrittenProgram", request: EmitRequest, folder: Path) -> Artifact:
        """Write the artifact into `folder`."""
        ...

    def open(self, path: Path, input: TensorSpec, outputs: tuple[TensorSpec, ...], options: Any) -> Runner:
        """A runner over an artifact written earlier; `options` are of the target's own type."""
        ...
