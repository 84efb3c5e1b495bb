"""Targets: emit a rewritten program for an engine, and run what was emitted. One folder per engine."""

import importlib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from exporter.errors import TargetUnavailableError, UsageError, nearest
from exporter.signature import Array, Inputs, Signature, TensorSpec
from exporter.targets.by_length import by_length
from exporter.targets.runner import Device, Run, Runner
from exporter.targets.target import Artifact, Emit, EmitRequest, Progress, Target

TARGETS = ("onnx", "trt", "trt-rtx", "torch-trt", "aoti", "openvino")
"""The engines, by name; the folder of each is its name with underscores, and its card the `TARGET` in `target.py`."""


def cards() -> tuple[Target, ...]:
    """Every engine's card, whether or not the engine is here; imports no engine."""
    return tuple(_card(name) for name in TARGETS)


def find_target(name: str) -> Target:
    """The target of that name, whether or not its engine is here; or the one that runs what was prepared.

    Raises:
        UsageError: there is no such target.
    """
    if name not in TARGETS:
        prepared = {card.prepared.name: card.prepared.run_by for card in cards() if card.prepared}
        if name not in prepared:
            raise UsageError(
                f"target: expected one of {', '.join(TARGETS)}, got {name}.{nearest(name, TARGETS)}"
            )
        name = prepared[name]
    return _card(name)


def _card(name: str) -> Target:
    found: Target = importlib.import_module(f"{__name__}.{name.replace('-', '_')}.target").TARGET
    return found


def target(name: str, precision: str | None = None, options: Any = None) -> Target:
    """The target of that name; its libraries are imported now.

    Args:
        name: of the target.
        precision: that it has to compute in, if that matters.
        options: of the target's own type, that it has to serve, if that matters.

    Raises:
        UsageError: there is no such target, or the options exclude each other.
        TargetUnavailableError: this machine cannot emit for it, or not with these options, or it cannot compute in that
            precision.
    """
    found = find_target(name)
    if precision is not None and precision not in found.precisions:
        raise TargetUnavailableError(
            f"target {name}: expected precision {' or '.join(found.precisions)}, got {precision}"
        )
    found.check_available()
    if options is not None and found.check_options is not None:
        found.check_options(options)
    return found


def options_from(name: str, values: Mapping[str, object]) -> Any:
    """A target's options out of plain values, such as a manifest's; what is not given has its default.

    Raises:
        UsageError: there is no such target, or the options exclude each other.
        ValueError: an option that the target does not have, or a value of another type.
    """
    kind = find_target(name).options
    known = {field.name for field in fields(kind)}
    if unknown := sorted(set(values) - known):
        raise ValueError(f"unknown option {unknown[0][:40]}")
    hints = get_type_hints(kind)
    for option, value in values.items():
        if not _fits(value, hints[option]):
            raise ValueError(f"{option}: got a value of another kind")
    return kind(**values)


def _fits(value: object, hint: Any) -> bool:
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_args(hint):  # a union
        return any(_fits(value, choice) for choice in get_args(hint))
    return type(value) is hint


def open_runner(name: str, path: Path, *, signature: Signature, options: Any = None) -> Runner:
    """A runner over an artifact on disk; whether it runs here shows when it is loaded.

    Args:
        name: of the target.
        path: of the artifact's main file.
        signature: of the model.
        options: of the target's own type, None for its defaults.

    Raises:
        UsageError: there is no such target.
    """
    found = find_target(name)
    return found.open(path, signature, found.options() if options is None else options)


__all__ = [
    "TARGETS",
    "Array",
    "Artifact",
    "Device",
    "Emit",
    "EmitRequest",
    "Inputs",
    "Progress",
    "Run",
    "Runner",
    "Signature",
    "Target",
    "TensorSpec",
    "by_length",
    "cards",
    "find_target",
    "open_runner",
    "options_from",
    "target",
]
