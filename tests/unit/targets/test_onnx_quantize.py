"""int8: which products are quantised, that they compute what the definition says, and on which kernels."""

import logging
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch

from exporter.errors import UsageError
from exporter.targets.onnx.quantize import quantize
from tests.support.hand_made_onnx import node, one_in_one_out

BATCH, TOKENS, CHANNELS = 2, 5, 8
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.normal(1.0, 2.0, (4, TOKENS, CHANNELS)).astype(np.float32)
UP = RANDOM.normal(size=(CHANNELS, CHANNELS)).astype(np.float32) * np.geomspace(
    0.1, 10, CHANNELS, dtype=np.float32
)
HEAD = RANDOM.normal(size=(CHANNELS, 3)).astype(np.float32)
BIAS = RANDOM.normal(size=CHANNELS).astype(np.float32)

Activations = Literal["uint8", "int8"]


def model(batch: int | str = BATCH) -> ir.Model:
    """A product with a weight in a block, one of tokens with tokens, and one with a weight in the head."""
    nodes = [
        node("MatMul", "x up", "product", name="block_00/linear"),
        node("Add", "product bias", "linear", name="block_00/bias"),
        node("Transpose", "linear", "turned", name="block_00/turn", perm=[0, 2, 1]),
        node("MatMul", "linear turned", "logits", name="block_00/attention"),
        node("MatMul", "logits linear", "mixed", name="block_00/mix"),
        node("MatMul", "mixed head", "y", name="head/linear"),
    ]
    weights = {name: torch.from_numpy(array) for name, array in (("up", UP), ("bias", BIAS), ("head", HEAD))}
    shapes = {"x": [batch, TOKENS, CHANNELS], "y": [batch, TOKENS, 3]}
    made = ir.from_proto(one_in_one_out(nodes, shapes, weights))
    made.producer_name, made.graph.name = "exporter", "tiny"
    made.metadata_props["method"] = "tome"
    return made


def run(quantised: ir.Model, images: Any) -> Any:
    session = onnxruntime.InferenceSession(
        ir.to_proto(quantised).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"x": images})[0]


def rounded(values: Any, scale: Any, zero: Any, low: int, high: int) -> Any:
    """Return what a value is after quantisation and back: ONNX's QuantizeLinear and DequantizeLinear."""
    return (np.clip(np.rint(values / scale) + zero, low, high) - zero) * scale


def by_definition(images: Any, activations: Activations) -> Any:
    """Return the model's output with the first product's operands rounded, in fp64."""
    weight = rounded(UP.astype(np.float64), np.abs(UP).max(axis=0) / 127, 0, -127, 127)
    low, high = min(0.0, float(IMAGES.min())), max(0.0, float(IMAGES.max()))
    if activations == "uint8":
        scale = np.float32((high - low) / 255)
        given = rounded(images, scale, np.rint(-low / scale), 0, 255)
    else:
        given = rounded(images, np.float32(2 * max(-low, high) / 254), 0, -127, 127)
    linear = given.astype(np.float64) @ weight + BIAS
    return linear @ linear.transpose(0, 2, 1) @ linear @ HEAD


def maker(value: ir.Value | None) -> str:
    """Return the operator that made a value; nothing for a weight."""
    producer = None if value is None else value.producer()
    return "" if producer is None else producer.op_type


def tensor(value: ir.Value | None) -> ir.TensorProtocol:
    """Return what a constant holds."""
    assert value is not None and value.const_value is not None
    return value.const_value


@pytest.mark.parametrize("activations", ["uint8", "int8"])
def test_the_block_computes_with_rounded_operands_and_nothing_else_is_rounded(
    activations: Activations, tmp_path: Path
) -> None:
    quantised = quantize(model(), IMAGES, tmp_path, activations)

    got, expected = run(quantised, IMAGES[:2]), by_definition(IMAGES[:2], activations)
    scale = np.abs(expected).max()

    np.testing.assert_allclose(got, expected, atol=1e-5 * scale)
    assert np.abs(run(model(), IMAGES[:2]) - expected).max() > 1e-3 * scale


def test_pairs_stand_in_front_of_products_with_weights_in_blocks(tmp_path: Path) -> None:
    quantised = quantize(model(), IMAGES, tmp_path, "uint8")
    producers = {
        str(each.name): [maker(value) for value in each.inputs]
        for each in quantised.graph
        if each.op_type == "MatMul"
    }

    assert producers == {
        "block_00/linear": ["DequantizeLinear", "DequantizeLinear"],
        "block_00/attention": ["Add", "Transpose"],
        "block_00/mix": ["MatMul", "Add"],
        "head/linear": ["MatMul", ""],
    }
    assert {str(each.name).partition("/")[0] for each in quantised.graph} == {"block_00", "head"}
    assert len({each.name for each in quantised.graph}) == len(list(quantised.graph))


@pytest.mark.parametrize(
    ("activations", "expected"), [("uint8", {"UINT8", "INT8"}), ("int8", {"INT8"})], ids=["cpu", "tensorrt"]
)
def test_integers_are_of_the_type_that_was_asked_for(
    activations: Activations, expected: set[str], tmp_path: Path
) -> None:
    quantised = quantize(model(), IMAGES, tmp_path, activations)
    zeros = [tensor(each.inputs[2]) for each in quantised.graph if each.op_type == "DequantizeLinear"]

    assert {str(zero.dtype) for zero in zeros} == expected
    assert activations == "uint8" or not any(zero.numpy().any() for zero in zeros)


def test_what_the_model_says_about_itself_is_kept(tmp_path: Path) -> None:
    given = model()
    quantised = quantize(given, IMAGES, tmp_path, "uint8")

    assert (quantised.graph.name, quantised.producer_name) == ("tiny", "exporter")
    assert dict(quantised.metadata_props) == dict(given.metadata_props) == {"method": "tome"}
    assert quantised.opset_imports == given.opset_imports
    onnx.checker.check_model(ir.to_proto(quantised), full_check=True)


def test_nothing_is_printed_logged_or_left_behind(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)

    quantize(model(), IMAGES, tmp_path, "uint8")

    assert (capfd.readouterr(), caplog.messages, list(tmp_path.iterdir())) == (("", ""), [], [])


def test_stock_onnx_runtime_multiplies_integers(tmp_path: Path) -> None:
    settings = onnxruntime.SessionOptions()
    settings.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    settings.log_severity_level = 3
    quantised = ir.to_proto(quantize(model(), IMAGES, tmp_path, "uint8")).SerializeToString()

    onnxruntime.InferenceSession(quantised, settings, providers=["CPUExecutionProvider"])
    kinds = Counter(each.op_type for each in onnx.load(str(tmp_path / "optimized.onnx")).graph.node)

    assert (kinds["MatMulIntegerToFloat"], kinds["DequantizeLinear"]) == (1, 0)


def test_the_last_batch_is_padded_with_its_last_row(tmp_path: Path) -> None:
    three = quantize(model(), IMAGES[:3], tmp_path, "uint8")
    padded = quantize(model(), IMAGES[[0, 1, 2, 2]], tmp_path, "uint8")
    four = quantize(model(), IMAGES * 2, tmp_path, "uint8")

    np.testing.assert_array_equal(run(three, IMAGES[:2]), run(padded, IMAGES[:2]))
    assert (run(three, IMAGES[:2]) != run(four, IMAGES[:2])).any()


def test_free_batch_is_calibrated_as_well(tmp_path: Path) -> None:
    free = quantize(model("batch"), IMAGES, tmp_path, "uint8")

    np.testing.assert_allclose(
        run(free, IMAGES[:3])[:2], run(quantize(model(), IMAGES, tmp_path, "uint8"), IMAGES[:2]), rtol=1e-5
    )


def test_models_beyond_protobuf_are_quantised_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = ir.to_proto(quantize(model(), IMAGES, tmp_path, "uint8"))
    monkeypatch.setattr("exporter.targets.onnx.save._EXTERNAL_ABOVE_BYTES", 100)

    large = ir.to_proto(quantize(model(), IMAGES, tmp_path, "uint8"))

    assert large.SerializeToString(deterministic=True) == expected.SerializeToString(deterministic=True)
    assert list(tmp_path.iterdir()) == []


def test_another_process_writes_the_same_bytes(tmp_path: Path) -> None:
    source = (
        "import sys; from pathlib import Path; import onnx_ir as ir; "
        "from tests.unit.targets.test_onnx_quantize import IMAGES, model, quantize; "
        "folder = Path(sys.argv[1]); ir.save(quantize(model(), IMAGES, folder, 'uint8'), folder / 'model.onnx')"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "4242", "PYTHONPATH": str(Path(__file__).parents[3])}
    subprocess.run([sys.executable, "-c", source, str(tmp_path)], check=True, env=environment)

    ir.save(quantize(model(), IMAGES, tmp_path, "uint8"), tmp_path / "here.onnx")

    assert (tmp_path / "here.onnx").read_bytes() == (tmp_path / "model.onnx").read_bytes()


@pytest.mark.parametrize("images", [None, IMAGES[:0]], ids=["none", "empty"])
def test_no_calibration_images_are_refused_in_one_line(images: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="int8: expected at least one calibration image, got none") as caught:
        quantize(model(), images, tmp_path, "uint8")

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("activations", "types"), [("uint8", ["INT32", "INT8", "UINT8"]), ("int8", ["INT8", "INT8"])]
)
def test_a_product_with_its_own_bias_has_an_integer_bias_where_engines_read_it(
    activations: Activations, types: list[str], tmp_path: Path
) -> None:
    given = one_in_one_out(
        [node("Gemm", "x up bias", "y", name="block_00/linear")],
        {"x": [BATCH, CHANNELS], "y": [BATCH, CHANNELS]},
        {"up": torch.from_numpy(UP), "bias": torch.from_numpy(BIAS)},
    )

    quantised = quantize(ir.from_proto(given), IMAGES[:, 0], tmp_path, activations)
    zeros = [tensor(each.inputs[2]) for each in quantised.graph if each.op_type == "DequantizeLinear"]

    assert sorted(str(zero.dtype) for zero in zeros) == types
    np.testing.assert_allclose(run(quantised, IMAGES[:2, 0]), IMAGES[:2, 0] @ UP + BIAS, atol=0.5)
