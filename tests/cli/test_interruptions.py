"""Failures and interrupts in the middle of a build: the right status, nothing left behind, the old bundle unhurt."""

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from exporter.targets.onnx.probe import OnnxProbe
from exporter.targets.onnx.runner import OnnxRunner
from tests.cli.commands import ROOT, TINY, Build, Outcome, refused, run, tree

Arrays = dict[str, npt.NDArray[Any]]


@pytest.fixture
def occupied(tmp_path: Path, build: Build) -> Iterator[Path]:
    """A place where a bundle stands, which must be unhurt after the test, without anything new beside it."""
    place = tmp_path / "occupied"
    shutil.copytree(build(*TINY, "--r", "2"), place / "bundle")
    before = tree(place)
    yield place / "bundle"
    assert tree(place) == before


def tampering(monkeypatch: pytest.MonkeyPatch, change: Callable[[Arrays], Arrays]) -> None:
    """Have ONNX Runtime return something else than it computed."""
    for runner in (OnnxRunner, OnnxProbe):
        monkeypatch.setattr(runner, "__call__", _changed(runner.__call__, change))


def _changed(honest: Callable[..., Arrays], change: Callable[[Arrays], Arrays]) -> Callable[..., Arrays]:
    return lambda self, images: change(honest(self, images))


def failing(error: BaseException) -> Callable[..., None]:
    def fail(*arguments: object, **options: object) -> None:
        raise error

    return fail


# The gates ------------------------------------------------------------------------------------------


def not_a_number(outputs: Arrays) -> Arrays:
    return {name: array * np.nan if name == "logits" else array for name, array in outputs.items()}


def other_partner(outputs: Arrays) -> Arrays:
    """The last source of the first block, sent to the destination next to its own."""
    changed = {name: array.copy() for name, array in outputs.items()}
    if "match_0" in changed:
        changed["match_0"][:, -1] -= 1
    return changed


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        pytest.param(not_a_number, "not finite", id="NaN"),
        pytest.param(other_partner, "regret", id="match"),
    ],
)
def test_wrong_engine_leaves_no_bundle(
    change: Callable[[Arrays], Arrays],
    fact: str,
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tampering(monkeypatch, change)

    complaint = refused(5, *TINY, "--r", "4")

    assert "onnx" in complaint
    assert fact in complaint


def test_wrong_engine_leaves_the_old_bundle(occupied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tampering(monkeypatch, not_a_number)

    refused(5, *TINY, "--r", "2", "--out", occupied, "--force")


# The disk -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("writer", ["onnx_ir.save", "pathlib.Path.write_bytes"])
def test_full_disk_leaves_nothing(writer: str, occupied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, failing(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))

    complaint = refused(2, *TINY, "--r", "2", "--out", occupied, "--force")

    assert "No space left on device" in complaint
    assert "--out" in complaint


def test_file_size_limit_leaves_nothing(workplace: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))
    try:
        complaint = refused(2, *TINY, "--r", "2")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert "cannot be written: File too large" in complaint
    assert "ulimit -f" in complaint


# Ctrl-C ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["exporter.targets.onnx.emit.emit", "os.fsync"])
def test_interrupt_at_any_stage_leaves_the_old_bundle(
    place: str, occupied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, failing(KeyboardInterrupt()))

    outcome = run(*TINY, "--r", "2", "--out", occupied, "--force", "--json")

    assert outcome.status == 130
    assert outcome.document["exit_status"] == 130
    assert "Traceback" not in outcome.err
    assert "interrupted" in outcome.err


def interrupted_after_rewrite(*words: str | Path, cwd: Path) -> Outcome:
    """Run a command in a process of its own, and press Ctrl-C when it has rewritten the graph."""
    command = [sys.executable, "-m", "exporter", *map(str, words)]
    with subprocess.Popen(
        command,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stderr is not None
        seen = []
        for line in process.stderr:
            seen.append(line)
            if "rewrite" in line:
                process.send_signal(signal.SIGINT)
                break
        out, rest = process.communicate(timeout=120)
    return Outcome(status=process.returncode, out=out, err="".join(seen) + rest)


def test_ctrl_c_ends_with_130_and_leaves_the_old_bundle(occupied: Path) -> None:
    words = (*TINY, "--r", "2", "--out", occupied, "--force")
    outcome = interrupted_after_rewrite(*words, cwd=occupied.parent)

    assert outcome.status == 130
    assert outcome.out == ""
    assert [line for line in outcome.err.splitlines() if line][-1].startswith("error: interrupted")
    assert "Traceback" not in outcome.err


def test_interrupt_of_a_first_build_leaves_nothing(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("numpy.savez", failing(KeyboardInterrupt()))

    assert run(*TINY, "--r", "2").status == 130
