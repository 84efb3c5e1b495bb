"""Whatever is saved is linted, and what an engine refuses fails the test that saved it."""

from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

from tests.support.linted import assert_linted, assert_taken, linting_whatever_is_saved
from tests.unit.lint.small_graphs import model


def test_model_that_an_engine_refuses_fails(tmp_path: Path) -> None:
    onnx.save(model("float[2,3] x", "y = Det(x)"), tmp_path / "model.onnx")

    with pytest.raises(AssertionError, match="trt-operator: y .Det."):
        assert_linted(tmp_path / "model.onnx")


def test_bfloat16_model_is_not_held_against_a_cpu(tmp_path: Path) -> None:
    onnx.save(model("bfloat16[2,3] x", "y = Neg(x)"), tmp_path / "model.onnx")

    assert_linted(tmp_path / "model.onnx")


def test_uint8_activations_are_not_held_against_tensorrt_unless_they_are_meant_for_it(tmp_path: Path) -> None:
    body = "h = QuantizeLinear(x, s, z)\n y = DequantizeLinear(h, s, z)"
    path = tmp_path / "model.onnx"
    onnx.save(model("float[2,3] x", body, weights="float s = {0.5}, uint8 z = {7}"), path)

    assert_linted(path)
    assert_taken(path, "ort")
    with pytest.raises(AssertionError, match="trt-zero-point"):
        assert_taken(path, "trt")


def test_every_saved_model_is_linted(tmp_path: Path) -> None:
    good, bad = (ir.from_proto(model("float[2,3] x", f"y = {name}(x)")) for name in ("Relu", "Det"))

    with linting_whatever_is_saved() as saved:
        ir.save(good, tmp_path / "good.onnx")
        with pytest.raises(AssertionError, match="bad.onnx breaks rules"):
            ir.save(bad, tmp_path / "bad.onnx")

    assert saved == [
        tmp_path / "good.onnx"
    ]  # every test runs under the same watch, which has refused the other


def test_nothing_is_watched_afterwards(tmp_path: Path) -> None:
    before = ir.save

    with linting_whatever_is_saved():
        pass

    assert ir.save is before
