"""Calls of a package on a GPU that is pretended on the CPU: memory, stream, recording."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from exporter.signature import Signature, TensorSpec
from exporter.targets.aoti import gpu_call
from exporter.targets.aoti.options import AotiOptions
from exporter.targets.aoti.runner import AotiRunner
from exporter.targets.aoti.target import TARGET

IMAGES = TensorSpec(name="images", dtype="float32", shape=(2, 3))
LOGITS = TensorSpec(name="logits", dtype="float32", shape=(2, 3))
PATH = Path("model_aoti.pt2")


class Package:
    """As PyTorch's loader: takes its inputs out of the list; returns an output and a match."""

    def __init__(self) -> None:
        self.read_at: list[int] = []

    def boxed_run(self, inputs: list[Tensor]) -> list[Tensor]:
        (images,) = inputs
        inputs.clear()
        self.read_at.append(images.data_ptr())
        return [images * 2 + 1, torch.zeros(2, 5, dtype=torch.int64)]


class Stream:
    """A stream whose work is done at once, and that says when it was waited for."""

    def __init__(self) -> None:
        self.waits = 0

    def synchronize(self) -> None:
        self.waits += 1


def record(call: Any) -> Any:
    """As `recorded`: what is replayed writes where the recorded call wrote."""
    kept = call()

    def replay() -> Any:
        for old, new in zip(kept, call(), strict=True):
            old.copy_(new)
        return kept

    return replay


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)
    monkeypatch.setattr(Tensor, "pin_memory", Tensor.clone)
    monkeypatch.setattr(Tensor, "cuda", Tensor.clone)
    monkeypatch.setattr(gpu_call, "recorded", record)


def runner_of(package: Package, batch: int | str = 2, *, cuda_graph: bool = True) -> AotiRunner:
    signature = Signature(
        inputs=(TensorSpec(name="images", dtype="float32", shape=(batch, 3)),), outputs=(LOGITS,)
    )
    return AotiRunner(path=PATH, signature=signature, device="cuda", cuda_graph=cuda_graph, _engine=package)


@pytest.mark.parametrize("cuda_graph", [True, False], ids=["graph", "launched"])
def test_every_batch_has_its_own_results_over_the_same_memory(cuda_graph: bool) -> None:
    package = Package()
    images = np.arange(15, dtype=np.float32).reshape(5, 3)
    runner = runner_of(package, cuda_graph=cuda_graph)

    first, second = runner(images)["logits"], runner(-images)["logits"]

    np.testing.assert_array_equal(first, images * 2 + 1)
    np.testing.assert_array_equal(second, -images * 2 + 1)
    assert len(set(package.read_at)) == 1
    assert runner._call is not None
    assert vars(runner._call.stream) == {"waits": 2 * 3}  # one for each batch of two


def test_matches_stay_on_the_gpu() -> None:
    call = gpu_call.prepare_call(Package(), [np.ones((2, 3), np.float32)], 1, cuda_graph=True)

    assert [tensor.shape for tensor in call.leaving] == [(2, 3)]


def test_closed_runner_lets_go_of_the_memory() -> None:
    runner = runner_of(Package())
    runner(np.ones((2, 3), np.float32))

    runner.close()

    assert runner._call is None and runner._engine is None


def test_free_batch_axis_is_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tensor, "to", lambda tensor, device: tensor.clone())
    runner = runner_of(Package(), "batch")
    images = np.ones((3, 3), np.float32)

    np.testing.assert_array_equal(runner(images)["logits"], images * 2 + 1)

    assert runner._call is None and not runner._recording


def test_option_reaches_the_runner() -> None:
    for cuda_graph in (True, False):
        opened = TARGET.open(
            PATH, Signature(inputs=(IMAGES,), outputs=(LOGITS,)), AotiOptions(cuda_graph=cuda_graph)
        )
        assert isinstance(opened, AotiRunner) and opened.cuda_graph is cuda_graph
