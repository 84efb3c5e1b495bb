"""What a target is: everything that the rest of the compiler knows of an engine, on one card.

In: a `RewrittenProgram`. Out: an `Artifact` in a folder, and a `Runner` over it. A card imports neither its engine nor
torch; its functions import what they need when they are called.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.errors import UsageError
from exporter.forms import Forms, Precision
from exporter.signature import Array, Inputs, Signature
from exporter.targets.runner import Device, Runner

if TYPE_CHECKING:
    from exporter.lint import Engine
    from exporter.rewrite import RewrittenProgram

Details = Mapping[str, Any]
"""JSON values for the manifest."""

Progress = Callable[[int, int], None]
"""Called with the steps done and the steps in all."""


@dataclass(frozen=True, kw_only=True)
class EmitRequest:
    """What is emitted beside the program itself.

    Attributes:
        signature: the model's inputs and outputs; the program's further results are matches.
        metadata: key and value texts to embed where the format has a place for them.
        precision: that the engine computes in. The program is typed already, but for `int8`, where the target
            quantises a program in fp32.
        forms: the form that the program was rewritten in; a target's part is the attention.
        options: of the target's own `options` type.
        calibration: for `int8`, inputs as the engine takes them: (n, ...) by name, or of the only one.
        shared_folder: below the folder that is written into, or "." for itself: where weights lie that several models
            have in common, for formats that can refer to them; None where a model has its weights for itself.
        progress: called during a long build.
    """

    signature: Signature
    metadata: Mapping[str, str] = field(default_factory=dict)
    precision: Precision = "fp32"
    forms: Forms = field(default_factory=Forms)
    options: Any
    calibration: Inputs | None = None
    shared_folder: str | None = None
    progress: Progress | None = None


Probe = Callable[[Mapping[str, Array]], dict[str, Array]]
"""Runs one batch of inputs by name; outputs and matches by name, in order."""


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
        unverified: built beside it and not run: in the bundle, without parity.
        notes: what users have to know of it, one line each.
    """

    target: str
    file: str
    opset: int | None = None
    runner: Runner
    probe: Probe | None = None
    built_from: Mapping[str, str] = field(default_factory=dict)
    details: Details = field(default_factory=dict)
    unverified: tuple["Artifact", ...] = ()
    notes: tuple[str, ...] = ()


Emit = Callable[["RewrittenProgram", EmitRequest, Path], Artifact]
"""Writes the artifact of a program into a folder."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """How an engine is prepared on a machine that cannot build or run it.

    Attributes:
        name: of the artifact, in manifests and file names.
        run_by: name of the target that runs what is prepared.
        emit: writes it, with what builds the engine elsewhere; None where the target's own `emit` does, unasked.
    """

    name: str
    run_by: str
    emit: Emit | None = None


@dataclass(frozen=True, kw_only=True)
class Target:
    """One engine. A target is a folder whose `target` module has a `TARGET`, and its name in `TARGETS`.

    Attributes:
        name: as users write it.
        precisions: that it can be built in.
        distributions: on the package index, that run it; their versions are part of its manifests.
        extra: of this package that installs them; None where they always come along.
        lint: the lint's rules for it, checked before a build; None where there are none.
        options: its own choices: a frozen dataclass of plain values, all with defaults.
        forms: those that were measured to be fastest, by device.
        kernels: devices that run programs with kernels of this package (`forms.Forms.merge`).
        device: that an engine with given options runs on.
        check_available: raises a TargetUnavailableError that says what is missing and the line that installs it.
        check_options: raises an ExportError for options that exclude each other (UsageError) or that need what is not
            here (TargetUnavailableError); before anything is loaded or built. None where all can be served.
        describe: what runs the artifacts here, for people: library, version, devices.
        emit: writes the artifact.
        open: a runner over an artifact written earlier, with options of the target's own type.
        prepared: what is done where its engine cannot be built; None for nothing.
    """

    name: str
    precisions: tuple[Precision, ...]
    distributions: tuple[str, ...] = ()
    extra: str | None = None
    lint: "Engine | None" = None
    options: type
    forms: Mapping[Device, Forms]
    kernels: tuple[Device, ...] = ()
    device: Callable[[Any], Device]
    check_available: Callable[[], None]
    describe: Callable[[], str]
    emit: Emit
    check_options: Callable[[Any], None] | None = None
    open: Callable[[Path, Signature, Any], Runner]
    prepared: Prepared | None = None

    def default_forms(self, options: Any) -> Forms:
        """The fastest forms on the device that these options name."""
        return self.forms[self.device(options)]

    def choose_forms(self, options: Any, asked: Mapping[str, Any]) -> Forms:
        """The fastest forms on the device that these options name, but for those that were asked for, by name.

        Raises:
            UsageError: kernels of this package are asked for where they do not run.
        """
        forms, device = self.default_forms(options).choose(asked), self.device(options)
        if forms.has_kernels and device not in self.kernels:
            raise UsageError(
                f"lowering: forms with kernels run on a GPU on the target aoti with --engine-option aoti.device=cuda, "
                f"got target {self.name} on {device}; leave out merge=kernels, mask=kernel and selection=kernel"
            )
        return forms
