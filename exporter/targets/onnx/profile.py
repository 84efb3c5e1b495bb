"""Where an ONNX model spends its time, block by block, by ONNX Runtime's own profiler.

Nodes carry the block that they belong to in their names (`build`). What ONNX Runtime makes of several nodes may have a
name of its own; it runs in between, and counts to the block before it.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from exporter.signature import Array

KERNEL = "_kernel_time"
"""What the profiler adds to the name of a node that ran."""


def profile_blocks(
    open_session: Callable[[], Any], feed: Mapping[str, Array], settings: Any, calls: int, folder: Path
) -> dict[str, float]:
    """Milliseconds of one call by block, the median over calls; the first call does not count.

    Args:
        open_session: with `settings`.
        feed: the model's input.
        settings: ONNX Runtime's session options; profiling is switched on in them.
        calls: to take the median over.
        folder: for the profiler's file, which does not stay.
    """
    runs = _runs(trace(open_session, feed, settings, calls + 1, folder))
    labels = dict.fromkeys(label for run in runs for label in run)
    return {label: float(np.median([run.get(label, 0.0) for run in runs[1:]])) for label in labels}


def trace(
    open_session: Callable[[], Any], feed: Mapping[str, Array], settings: Any, calls: int, folder: Path
) -> list[dict[str, Any]]:
    """The profiler's events of some calls; the arguments are those of `profile_blocks`."""
    settings.enable_profiling = True
    settings.profile_file_prefix = str(folder / "profile")
    session = open_session()
    for _ in range(calls):
        session.run(None, dict(feed))
    written = Path(session.end_profiling())
    try:
        events: list[dict[str, Any]] = json.loads(written.read_text(encoding="utf-8"))
    finally:
        written.unlink()
    return events


def _runs(events: Iterable[Mapping[str, Any]]) -> list[dict[str, float]]:
    """Milliseconds by block of every call, in the order of the calls."""
    kernels = [each for each in events if each.get("cat") == "Node" and each["name"].endswith(KERNEL)]
    calls = sorted(
        (each["ts"], each["ts"] + each["dur"]) for each in events if each.get("name") == "model_run"
    )
    found = []
    for start, stop in calls:
        inside = sorted((each for each in kernels if start <= each["ts"] < stop), key=lambda each: each["ts"])
        found.append(_by_block(inside))
    return found


def _by_block(kernels: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    spent: dict[str, float] = {}
    label = ""
    for kernel in kernels:
        block, slash, _ = kernel["name"].partition("/")
        label = block if slash else label
        if label:
            spent[label] = spent.get(label, 0.0) + kernel["dur"] / 1000
    return spent
