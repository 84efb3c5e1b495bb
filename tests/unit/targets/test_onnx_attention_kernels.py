"""Which attention kernel ran, read from what ONNX Runtime prints."""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from exporter.errors import UsageError
from exporter.rewrite import RewrittenProgram
from exporter.targets import Signature, TensorSpec, target
from exporter.targets.onnx.attention_kernels import attention_kernels, read_kernels
from exporter.targets.onnx.options import OnnxOptions
from exporter.targets.onnx.runner import OnnxRunner
from tests.support.families import family
from tests.support.hand_made_onnx import write_product
from tests.support.tiny_vit import request_of

VARIABLE = "ORT_ENABLE_ATTENTION_KERNEL_DEBUG_INFO"
LINES = (
    "\x1b[36mAttentionKernelOptions: FLASH_ATTENTION=1 EFFICIENT_ATTENTION=1 MATH=1\x1b[0m\n"
    "\x1b[36mOperator=MultiHeadAttention Node=block_00/Attention_3 DataType=fp16 SdpaKernel=FLASH_ATTENTION\x1b[0m\n"
    "\x1b[36mOperator=Attention Node=block_01/attention DataType=fp32 SdpaKernel=MATH\x1b[0m\n"
)
"""As `AttentionKernelOptions::Print` and `AttentionKernelDebugInfo::Print` of ONNX Runtime write them."""


def test_every_line_about_a_node_is_read() -> None:
    assert read_kernels(LINES) == {"block_00/Attention_3": "FLASH_ATTENTION", "block_01/attention": "MATH"}
    assert read_kernels("nothing of the kind") == {}


TRACE = (
    ("block_00/Attention_3", "MultiHeadAttention"),
    ("block_01/MatMul_2", "MatMul"),
    ("block_02/Softmax_7", "Softmax"),
)


def write_trace(prefix: str) -> str:
    """A profile with one event a node, and one of the session, as ONNX Runtime writes them."""
    node = {"cat": "Node", "args": {"provider": "CUDAExecutionProvider"}}
    events: list[dict[str, Any]] = [{"cat": "Session", "name": "model_run", "args": {}}]
    for name, operator in TRACE:
        args = {"op_name": operator, "provider": "CUDAExecutionProvider"}
        events.append({**node, "name": f"{name}_kernel_time", "args": args})
    Path(f"{prefix}.json").write_text(json.dumps(events), encoding="utf-8")
    return f"{prefix}.json"


@pytest.mark.parametrize("before", [None, "0"])
def test_output_of_the_library_is_caught_and_the_environment_put_back(
    before: str | None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    if before is not None:
        monkeypatch.setenv(VARIABLE, before)

    settings = SimpleNamespace()

    def open_session() -> Any:
        told = os.environ[VARIABLE]
        return SimpleNamespace(
            run=lambda names, feed: os.write(1, LINES.encode()) if told == "1" else 0,
            end_profiling=lambda: write_trace(settings.profile_file_prefix),
        )

    found = attention_kernels(open_session, {}, settings)
    print("still printed", file=sys.stdout, flush=True)

    assert found == {
        "block_00/Attention_3": "FLASH_ATTENTION",
        "block_01/attention": "MATH",
        "block_02/Softmax_7": "products on CUDAExecutionProvider",
    }
    assert os.environ.get(VARIABLE) == before
    assert capfd.readouterr().out == "still printed\n"


def test_environment_and_output_are_put_back_after_a_failure(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError):
        attention_kernels(lambda: 1 / 0, {}, SimpleNamespace())
    print("still printed", flush=True)

    assert VARIABLE not in os.environ
    assert capfd.readouterr().out == "still printed\n"


def test_attention_as_products_is_found_by_its_softmax(program: RewrittenProgram, tmp_path: Path) -> None:
    artifact = target("onnx").emit(program, request_of(OnnxOptions()), tmp_path)
    assert isinstance(artifact.runner, OnnxRunner)

    found = artifact.runner.attention_kernels(family("timm_vit").images(2).numpy())

    assert sorted(name.partition("/")[0] for name in found) == [f"block_{index:02}" for index in range(4)]
    assert set(found.values()) == {"products on CPUExecutionProvider"}


def test_kernels_of_a_gpu_are_in_the_manifest(
    program: RewrittenProgram, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []

    def kernels(runner: OnnxRunner, inputs: Any) -> dict[str, str]:
        given.append(inputs["images"])
        return {"a": "FLASH_ATTENTION", "b": "MATH", "c": "FLASH_ATTENTION"}

    monkeypatch.setattr("exporter.targets.onnx.emit.check_provider", lambda options: None)
    monkeypatch.setattr(OnnxRunner, "attention_kernels", kernels)

    artifact = target("onnx").emit(program, request_of(OnnxOptions(provider="cuda")), tmp_path)

    assert artifact.details["attention"] == {"FLASH_ATTENTION": 2, "MATH": 1}
    assert given[0].shape == (2, 3, 24, 24) and given[0].dtype == np.float32


def test_model_without_attention_has_no_kernel(tmp_path: Path) -> None:
    spec = TensorSpec(name="x", dtype="float32", shape=(2, 2))
    runner = OnnxRunner(
        path=write_product(tmp_path / "model.onnx"), signature=Signature(inputs=(spec,), outputs=(spec,))
    )

    assert runner.attention_kernels(np.zeros((2, 2), np.float32)) == {}
    with pytest.raises(UsageError, match="expected a batch of 2, got 3 rows"):
        runner.attention_kernels(np.zeros((3, 2), np.float32))
