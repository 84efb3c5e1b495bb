"""Which attention kernel ran, read from what ONNX Runtime prints."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from exporter.errors import UsageError
from exporter.targets import Signature, TensorSpec
from exporter.targets.onnx.attention_kernels import attention_kernels, read_kernels
from exporter.targets.onnx.runner import OnnxRunner
from tests.support.hand_made_onnx import write_product

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


@pytest.mark.parametrize("before", [None, "0"])
def test_output_of_the_library_is_caught_and_the_environment_put_back(
    before: str | None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    if before is not None:
        monkeypatch.setenv(VARIABLE, before)

    def open_session() -> Any:
        told = os.environ[VARIABLE]
        return SimpleNamespace(run=lambda names, feed: os.write(1, LINES.encode()) if told == "1" else 0)

    found = attention_kernels(open_session, {})
    print("still printed", file=sys.stdout, flush=True)

    assert len(found) == 2
    assert os.environ.get(VARIABLE) == before
    assert capfd.readouterr().out == "still printed\n"


def test_environment_and_output_are_put_back_after_a_failure(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError):
        attention_kernels(lambda: 1 / 0, {})
    print("still printed", flush=True)

    assert VARIABLE not in os.environ
    assert capfd.readouterr().out == "still printed\n"


def test_products_tell_nothing(tmp_path: Path) -> None:
    spec = TensorSpec(name="x", dtype="float32", shape=(2, 2))
    runner = OnnxRunner(
        path=write_product(tmp_path / "model.onnx"), signature=Signature(inputs=(spec,), outputs=(spec,))
    )

    assert runner.attention_kernels(np.zeros((2, 2), np.float32)) == {}
    with pytest.raises(UsageError, match="expected a batch of 2, got 3 images"):
        runner.attention_kernels(np.zeros((3, 2), np.float32))
