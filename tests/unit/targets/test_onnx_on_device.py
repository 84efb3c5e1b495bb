"""Calls on data that stays on the device, with ONNX Runtime's own binding over tensors of the CPU."""

import gc
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from exporter.targets import TensorSpec
from exporter.targets.onnx.on_device import bind, on_device
from exporter.targets.onnx.providers import Stream
from tests.support.hand_made_onnx import write_product

WEIGHT = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)


class StandInStream:
    """Notes down who waits for whom."""

    def __init__(self, name: str, notes: list[str]) -> None:
        self.name, self.notes, self.cuda_stream, self.device_index = name, notes, 1234, 1

    def wait_stream(self, other: "StandInStream") -> None:
        self.notes.append(f"{self.name} waits for {other.name}")


@pytest.fixture
def session(tmp_path: Path) -> Any:
    return onnxruntime.InferenceSession(
        str(write_product(tmp_path / "model.onnx")), providers=["CPUExecutionProvider"]
    )


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    noted: list[str] = []
    current = StandInStream("current", noted)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: StandInStream("own", noted))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: current)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: noted.append("synchronize"))
    monkeypatch.setattr(torch.Tensor, "cuda", lambda tensor: tensor)
    monkeypatch.setattr(
        torch.Tensor, "record_stream", lambda tensor, stream: noted.append(f"{stream.name} uses a tensor")
    )
    return noted


def test_a_bound_tensor_is_read_and_written_where_it_is(session: Any) -> None:
    given, result = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.zeros(2, 2)
    binding = session.io_binding()
    bind(binding.bind_input, "x", given)
    bind(binding.bind_output, "y", result)

    session.run_with_iobinding(binding)
    np.testing.assert_array_equal(result.numpy(), WEIGHT)
    given.mul_(10)
    session.run_with_iobinding(binding)

    np.testing.assert_array_equal(result.numpy(), 10 * WEIGHT)


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_calls_are_ordered_by_events_and_wait_for_nothing(
    session: Any, notes: list[str], cuda_graph: bool
) -> None:
    opened: list[Any] = []

    def open_on(stream: Any) -> Any:
        opened.append(stream)
        return session

    images = np.array([[1.0, 1.0], [2.0, 0.0]], np.float32)
    spec = TensorSpec(name="y", dtype="float32", shape=("batch", 2))
    call: Any = on_device(open_on, {"x": images}, (spec,), cuda_graph)

    assert opened == [Stream(handle=1234, device=1, cuda_graph=cuda_graph)]
    assert notes.count("own uses a tensor") == 2
    assert notes[-1] == "synchronize"
    notes.clear()
    (result,) = call()

    np.testing.assert_array_equal(result.numpy(), images @ WEIGHT)
    assert notes == ["own waits for current", "current waits for own"]


def test_bound_memory_lives_as_long_as_the_call(
    session: Any, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A binding knows addresses only; memory that torch gives back is anybody's, or is unmapped."""
    bound: list[weakref.ref[torch.Tensor]] = []

    def note(tensor: torch.Tensor, stream: object) -> None:
        bound.append(weakref.ref(tensor))

    monkeypatch.setattr(torch.Tensor, "record_stream", note)
    spec = TensorSpec(name="y", dtype="float32", shape=(2, 2))
    call: Any = on_device(lambda _: session, {"x": np.eye(2, dtype=np.float32)}, (spec,), cuda_graph=False)
    gc.collect()

    assert [tensor() is not None for tensor in bound] == [True, True]
    del call
    gc.collect()
    assert [tensor() for tensor in bound] == [None, None]
