"""The runner over the recording stand-in: profiles, order of calls, graphs."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from exporter.errors import UsageError
from exporter.targets.trt import device
from exporter.targets.trt.options import TrtOptions
from exporter.targets.trt.runner import TrtRunner
from tests.support.runner_contract import Opened, RunnerContract, rows
from tests.unit.targets.trt.conftest import STREAM, build_runner, open_runner
from tests.unit.targets.trt.recording import World

pytestmark = pytest.mark.usefixtures("world")

FREE = {"min_batch": 1, "opt_batch": 2, "max_batch": 4}


class TestTrtRunner(RunnerContract):
    """Over the recording stand-in, with and without a graph of launches."""

    @pytest.fixture(params=[False, True], ids=["launches", "graph"])
    def runner_of(self, request: pytest.FixtureRequest, tmp_path: Path) -> Opened:
        def build(batch: int | str) -> TrtRunner:
            profile = FREE if isinstance(batch, str) else {}
            return build_runner(tmp_path, batch, **profile, cuda_graph=request.param)

        return build


def test_fewer_images_than_the_profile_begins_with_are_padded(tmp_path: Path) -> None:
    outputs = build_runner(tmp_path, "batch", min_batch=3, opt_batch=3, max_batch=4)(rows(2))

    padded = rows(2)[[0, 1, 1]]
    np.testing.assert_allclose(outputs["centred"], (padded - padded.mean(axis=0))[:2])


def test_engine_runs_on_torchs_current_stream(tmp_path: Path, world: World) -> None:
    build_runner(tmp_path, 2)(rows(4))

    assert world.handles == [STREAM, STREAM]


def test_engine_is_loaded_once_and_only_when_needed(tmp_path: Path, world: World) -> None:
    build_runner(tmp_path, 2)
    world.calls.clear()
    runner = open_runner(tmp_path, 2, TrtOptions())
    assert world.calls == []

    runner(rows(2))
    runner(rows(4))

    assert world.calls.count("Runtime.deserialize_cuda_engine") == 1
    assert world.calls.count("ICudaEngine.create_execution_context") == 1


def test_torch_tensors_go_in_and_come_out(tmp_path: Path) -> None:
    outputs = build_runner(tmp_path, 2).forward(torch.from_numpy(rows(2)))

    assert {name: output.dtype for name, output in outputs.items()} == {
        "doubled": torch.float32,
        "centred": torch.float32,
    }
    np.testing.assert_array_equal(outputs["doubled"].numpy(), 2 * rows(2))


def test_results_of_a_graph_outlive_the_next_call(tmp_path: Path, world: World) -> None:
    runner = build_runner(tmp_path, 2, cuda_graph=True)

    first = runner.forward(torch.from_numpy(rows(2)))["doubled"]
    second = runner.forward(torch.from_numpy(rows(2) + 5))["doubled"]

    np.testing.assert_array_equal(first.numpy(), 2 * rows(2))
    np.testing.assert_array_equal(second.numpy(), 2 * (rows(2) + 5))
    assert len(world.handles) == 2  # once to warm up, once to capture


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_call_on_the_device_only_launches(tmp_path: Path, world: World, cuda_graph: bool) -> None:
    call: Any = build_runner(tmp_path, 2).enqueue(rows(2), cuda_graph=cuda_graph)
    world.calls.clear()

    first, second = call(), call()

    np.testing.assert_array_equal(first[0].numpy(), 2 * rows(2))
    assert second[0] is first[0]
    assert set(world.calls) <= {"IExecutionContext.execute_async_v3", "IExecutionContext.get_tensor_shape"}


def test_call_on_the_device_stays_good_when_the_runner_is_called(tmp_path: Path) -> None:
    runner = build_runner(tmp_path, 2)
    call: Any = runner.enqueue(rows(2), cuda_graph=False)

    other = runner.forward(torch.from_numpy(rows(2) + 7))["doubled"]
    doubled, _ = call()

    np.testing.assert_array_equal(doubled.numpy(), 2 * rows(2))
    np.testing.assert_array_equal(other.numpy(), 2 * (rows(2) + 7))


class PretendedStream:
    """Notes down who waits for whom."""

    def __init__(self, handle: int, waits: list[tuple[int, int]]) -> None:
        self.cuda_stream, self._waits = handle, waits

    def wait_stream(self, other: "PretendedStream") -> None:
        self._waits.append((self.cuda_stream, other.cuda_stream))


def test_default_stream_is_left_for_one_beside_it(
    tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[tuple[int, int]] = []
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: PretendedStream(0, waits))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(device, "_stream_beside", lambda index: PretendedStream(5, waits))

    build_runner(tmp_path, 2)(rows(2))

    assert world.handles == [5]
    assert waits == [(5, 0), (0, 5)]  # behind what is there, ahead of what comes


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_batch_outside_of_the_profile_is_refused(tmp_path: Path, cuda_graph: bool) -> None:
    runner = build_runner(tmp_path, "batch", **FREE)

    with pytest.raises(UsageError, match=r"model\.engine: expected a batch of 1 to 4, .* got 5"):
        runner.enqueue(rows(5), cuda_graph=cuda_graph)


def test_runner_of_a_batch_outside_of_the_profile_is_refused(tmp_path: Path) -> None:
    build_runner(tmp_path, "batch", **FREE)

    with pytest.raises(UsageError, match=r"expected a batch of 1 to 4, .* got 16"):
        open_runner(tmp_path, 16, TrtOptions()).load()


def test_opening_an_engine_imports_neither_torch_nor_what_makes_one() -> None:
    source = (
        "import sys; from pathlib import Path; from exporter.targets import Signature, TensorSpec, find_target; "
        "spec = TensorSpec(name='x', dtype='float32', shape=(1, 2)); target = find_target('trt'); "
        "target.open(Path('model.engine'), Signature(inputs=(spec,), outputs=(spec,)), target.options()); "
        "print({'torch', 'onnx', 'tensorrt'} & set(sys.modules))"
    )

    said = subprocess.run(
        [sys.executable, "-c", source],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[4],
    )

    assert said.stdout.strip() == "set()"
