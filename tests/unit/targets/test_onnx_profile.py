"""Time by block, read out of ONNX Runtime's own profile."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from exporter.targets import Signature, TensorSpec
from exporter.targets.onnx.profile import _runs
from exporter.targets.onnx.runner import OnnxRunner

SIDE = 64


@pytest.fixture
def runner(tmp_path: Path) -> OnnxRunner:
    """Block 0 multiplies by a 64 x 64 matrix once, block 1 three times."""
    weight = helper.make_tensor("w", TensorProto.FLOAT, [SIDE, SIDE], np.eye(SIDE, dtype=np.float32).ravel())
    places = ["stem", "block_00", *["block_01"] * 3, "head"]
    nodes = [
        helper.make_node("MatMul", [f"x{number}", "w"], [f"x{number + 1}"], name=f"{block}/MatMul_{number}")
        for number, block in enumerate(places)
    ]
    shape = [SIDE, SIDE]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x0", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(f"x{len(places)}", TensorProto.FLOAT, shape)],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.save(model, tmp_path / "model.onnx")
    return OnnxRunner(
        path=tmp_path / "model.onnx",
        signature=Signature(
            inputs=(TensorSpec(name="x0", dtype="float32", shape=(SIDE, SIDE)),),
            outputs=(TensorSpec(name=f"x{len(places)}", dtype="float32", shape=(SIDE, SIDE)),),
        ),
        threads=1,
    )


def test_every_block_has_its_time_and_no_file_stays(runner: OnnxRunner, tmp_path: Path) -> None:
    images = np.ones((SIDE, SIDE), np.float32)

    times = runner.profile(images, calls=5, folder=tmp_path)

    assert list(times) == ["stem", "block_00", "block_01", "head"]
    assert all(spent >= 0 for spent in times.values())
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def event(name: str, start_us: int, took_us: int, kind: str = "Node") -> dict[str, object]:
    return {"cat": kind, "name": name, "ts": start_us, "dur": took_us}


def test_time_of_every_call_is_split_by_the_names_of_its_kernels() -> None:
    events = [
        event("model_run", 0, 100, "Session"),
        event("stem/conv_kernel_time", 1, 10),
        event("block_00/linear_kernel_time", 20, 30),
        event("fused_by_the_runtime_kernel_time", 55, 5),
        event("head/linear_kernel_time", 70, 2),
        event("head/linear_fence_before", 69, 900),
        event("model_run", 200, 50, "Session"),
        event("block_00/linear_kernel_time", 210, 40),
    ]

    first, second = _runs(events)

    assert first == pytest.approx({"stem": 0.01, "block_00": 0.035, "head": 0.002})
    assert second == pytest.approx({"block_00": 0.04})


def test_kernels_before_the_first_name_belong_to_nobody() -> None:
    events = [event("model_run", 0, 100, "Session"), event("reorder_kernel_time", 1, 10)]

    assert _runs(events) == [{}]
