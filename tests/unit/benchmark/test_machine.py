"""What the machine tells about itself: memory, cores, load, environment."""

import mmap
import os
import platform
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from exporter.benchmark import Contender, EngineFile, Race, environment
from exporter.benchmark.clock import open_clock, wall_clock
from exporter.benchmark.cores import LoadMeter, pick_cores
from exporter.benchmark.memory import (
    ENGINE_BYTES,
    PYTORCH_BYTES,
    check_memory,
    estimate_bytes,
    forget_peak,
    peak_resident,
)
from exporter.errors import UsageError
from exporter.models import ModelRequest
from exporter.targets.cuda_graph import recorded
from tests.unit.benchmark.contenders import as_engine

MIB = 2**20


def test_peak_covers_what_was_freed_again_but_not_what_was_before() -> None:
    _touch(64 * MIB)
    if not forget_peak():
        pytest.skip("this kernel keeps the high-water mark")
    base = peak_resident(forgot=True).bytes

    _touch(32 * MIB)

    grown = peak_resident(forgot=True).bytes - base
    assert 31 * MIB <= grown <= 48 * MIB


def _touch(size: int) -> None:
    """Hold this much and give it back; mapped by itself, as an allocator may serve pages that are resident already."""
    with mmap.mmap(-1, size) as pages:
        for page in range(0, size, mmap.PAGESIZE):
            pages[page] = 1


def test_peak_without_forgetting_is_that_of_the_whole_life() -> None:
    kept, whole = peak_resident(forgot=True), peak_resident(forgot=False)

    assert (kept.since, whole.since) == ("load", "start")
    assert whole.bytes >= psutil.Process().memory_info().rss * 0.5


def test_memory_estimate_by_hand(engine: EngineFile, tmp_path: Path) -> None:
    """An engine of 10 MiB with 20 MiB of weights beside it, twice; a module of the same size, twice."""
    (tmp_path / "big.onnx").write_bytes(bytes(10 * MIB))
    (tmp_path / "big.onnx.data").write_bytes(bytes(20 * MIB))
    big = as_engine("big", replace(engine, path=tmp_path / "big.onnx"))
    eager = Contender(
        name="eager dense",
        kind="module",
        batch=big.batch,
        reduced=False,
        executed_macs=1,
        model=ModelRequest(model="vit_digits"),
    )

    assert estimate_bytes([big, eager]) == ENGINE_BYTES + PYTORCH_BYTES + 2 * 30 * MIB + 2 * 30 * MIB


def test_memory_is_counted_per_batch_size(engine: EngineFile) -> None:
    contenders = [replace(as_engine("a", engine), batch=batch) for batch in (1, 2, 4)]
    one = estimate_bytes(contenders[:1])

    check_memory(contenders, one)

    with pytest.raises(UsageError, match="1 processes at batch 1 need about"):
        check_memory(contenders, one - 1)


def test_picked_cores_are_usable_and_as_many_as_threads() -> None:
    usable = os.sched_getaffinity(0)

    for threads in range(1, len(usable) + 1):
        picked = pick_cores(threads)
        assert len(set(picked)) == threads and set(picked) <= usable


def test_physical_cores_come_before_their_siblings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four threads on two physical cores, numbered as Linux does: 0 and 2 share one, 1 and 3 the other."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    monkeypatch.setattr("exporter.benchmark.cores.physical_core", lambda core: f"{core % 2},{core % 2 + 2}")

    assert [pick_cores(threads) for threads in (1, 2, 3)] == [(3,), (2, 3), (1, 2, 3)]


def test_load_meter_subtracts_own_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cores, busy for 3 of 2 x 2 seconds, of which 1 was ours: one core busy with others' work."""

    def times(user: float) -> list[object]:
        rest = dict.fromkeys(("system", "nice", "irq", "softirq", "steal"), 0.0)
        return [type("Times", (), {**rest, "user": user})() for _ in range(2)]

    readings = iter([times(10.0), times(11.5)])
    clock = iter([100.0, 102.0])
    monkeypatch.setattr(psutil, "cpu_times", lambda percpu: next(readings))
    monkeypatch.setattr("exporter.benchmark.cores.time.monotonic", lambda: next(clock))

    assert LoadMeter((0, 1)).read(own_s=1.0) == pytest.approx(1.0)


def test_environment_names_the_machine_by_its_parts_only(tmp_path: Path) -> None:
    found = environment(Race(measurements=(), unavailable=(), threads=2, cores=(0, 1), device="cpu"))

    assert found["threads"] == 2 and found["cores"]["used"] == [0, 1] and found["device"] == "cpu"
    assert found["cores"]["logical"] == os.cpu_count()
    assert found["packages"]["torch"] == torch.__version__.split("+")[0]
    assert found["packages"]["numpy"] == np.__version__
    assert found["python"] == platform.python_version()
    text = repr(found)
    assert [word for word in (platform.node(), str(Path.home()), "/") if word and word in text] == []


def test_wall_clock_returns_the_outputs() -> None:
    milliseconds, outputs = open_clock("cpu")(lambda: "outputs")

    assert open_clock("cpu") is wall_clock
    assert milliseconds >= 0 and outputs == "outputs"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_graph_replays_the_work_and_events_time_it() -> None:
    images = torch.ones(4, 4, device="cuda")
    seen: list[torch.Tensor] = []

    def call() -> torch.Tensor:
        seen.append(images @ images)
        return seen[-1]

    replay = recorded(call)
    captured = len(seen)
    images.fill_(2.0)

    milliseconds, outputs = open_clock("cuda")(replay)

    assert isinstance(outputs, torch.Tensor)
    assert outputs.cpu().unique().tolist() == [16.0]  # the new images: rows of four 2s times 2
    assert milliseconds > 0
    assert len(seen) == captured
