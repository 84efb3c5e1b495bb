"""A machine with a pretended GPU and the recording stand-in for TensorRT; ONNX models small enough to read."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from exporter.targets import Signature, TensorSpec
from exporter.targets.trt import device
from exporter.targets.trt.build import BuildRequest
from exporter.targets.trt.build_files import build_files
from exporter.targets.trt.device import Device
from exporter.targets.trt.files import ENGINE, ONNX
from exporter.targets.trt.options import TrtOptions
from exporter.targets.trt.runner import TrtRunner
from tests.support.hand_made_onnx import write_doubling
from tests.unit.targets.trt import recording, stand_in
from tests.unit.targets.trt.recording import World

STREAM = 77

HOPPER = Device(name="NVIDIA H200", capability=(9, 0), place="cpu")


@pytest.fixture
def here() -> Device:
    """The GPU; its tensors lie in ordinary memory."""
    return HOPPER


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, here: Device) -> World:
    """TensorRT 11.4 on that GPU."""
    fresh = World()
    vars(recording.world).update(vars(fresh))
    use_version("11.4.0.106", monkeypatch)
    monkeypatch.setitem(sys.modules, "tensorrt", stand_in)
    monkeypatch.setattr(device, "current_device", lambda: here)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: SimpleNamespace(cuda_stream=STREAM))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", PretendedGraph)
    monkeypatch.setattr(torch.cuda, "graph", capturing)
    return recording.world


def use_version(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another TensorRT is installed now."""
    monkeypatch.setattr(recording.world, "version", version)
    monkeypatch.setattr(stand_in, "__version__", version)


class PretendedGraph:
    """Launches again what was launched while it was captured."""

    def __init__(self) -> None:
        self.launches: list[Callable[[], None]] = []

    def replay(self) -> None:
        for launch in self.launches:
            launch()


@contextmanager
def capturing(graph: PretendedGraph) -> Iterator[None]:
    recording.world.captured = graph.launches
    try:
        yield
    finally:
        recording.world.captured = None


def build_runner(folder: Path, batch: int | str = 2, **options: Any) -> TrtRunner:
    """An engine of that model, and a runner over it."""
    chosen = TrtOptions(**options)
    write_doubling(folder / ONNX, batch)
    wanted = BuildRequest(inputs=("images",), options=chosen, device=device.current_device())
    build_files(stand_in, folder, wanted, attention=0)
    return open_runner(folder, batch, chosen)


def open_runner(folder: Path, batch: int | str, options: TrtOptions) -> TrtRunner:
    return TrtRunner(
        path=folder / ENGINE,
        signature=Signature(
            inputs=(TensorSpec(name="images", dtype="float32", shape=(batch, 2)),),
            outputs=tuple(
                TensorSpec(name=name, dtype="float32", shape=(batch, 2)) for name in ("doubled", "centred")
            ),
        ),
        options=options,
    )
