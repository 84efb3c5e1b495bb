"""Targets: emit a rewritten program for an engine, and run what was emitted. One folder per engine."""

import importlib
from pathlib import Path

from exporter.errors import TargetUnavailableError, UsageError, nearest
from exporter.targets.target import Array, Artifact, EmitRequest, Runner, Target, TensorSpec

TARGETS = ("onnx",)
"""The engines that this version can emit for."""

PLANNED = ("trt", "torch-trt", "aoti", "openvino")
"""Engines that recipes may name and this version cannot emit for yet."""


def target(name: str, precision: str | None = None) -> Target:
    """The target of that name; its libraries are imported now.

    Args:
        name: of the target.
        precision: that it has to compute in, if that matters.

    Raises:
        UsageError: there is no such target.
        TargetUnavailableError: this version or this machine cannot emit for it, or not in that precision.
    """
    if name in PLANNED:
        raise TargetUnavailableError(
            f"target {name}: not in this version of exporter; expected one of {', '.join(TARGETS)}"
        )
    if name not in TARGETS:
        raise UsageError(f"target: expected one of {', '.join(TARGETS)}, got {name}.{nearest(name, TARGETS)}")
    folder = name.replace("-", "_")
    found: Target = importlib.import_module(f"{__name__}.{folder}.target").TARGET
    found.check_available()
    if precision is not None and precision not in found.precisions:
        raise TargetUnavailableError(
            f"target {name}: expected precision {' or '.join(found.precisions)}, got {precision}"
        )
    return found


def open_runner(name: str, path: Path, *, input: TensorSpec, outputs: tuple[TensorSpec, ...]) -> Runner:
    """A runner over an artifact on disk.

    Raises:
        UsageError, TargetUnavailableError: as `target` does.
    """
    return target(name).open(path, input, outputs)


__all__ = [
    "PLANNED",
    "TARGETS",
    "Array",
    "Artifact",
    "EmitRequest",
    "Runner",
    "Target",
    "TensorSpec",
    "open_runner",
    "target",
]
