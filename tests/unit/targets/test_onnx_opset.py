"""`onnx.opset`: the same numbers in every opset from 17 on, with the IR version that came with it, or a refusal."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from exporter.errors import UsageError
from exporter.forms import Forms
from exporter.lint.ort_rules import NEWEST_IR, OPSETS
from exporter.rewrite import RewrittenProgram
from exporter.targets import EmitRequest, target
from exporter.targets.onnx.opset import convert, newest
from exporter.targets.onnx.options import OnnxOptions
from tests.support.families import family
from tests.support.tiny_vit import request_of

# The IR version of the release that brought the opset: https://onnx.ai/onnx/repo-docs/Versioning.html
IR_VERSIONS = {17: 8, 18: 8, 19: 9, 20: 9, 21: 10, 22: 10, 23: 11, 24: 12, 25: 13, 26: 13}

REQUEST = request_of(OnnxOptions())


def asking(opset: int, **changes: Any) -> EmitRequest:
    return replace(REQUEST, options=OnnxOptions(opset=opset), **changes)


@pytest.mark.parametrize(
    ("opset", "precision"),
    [
        pytest.param(17, "fp32", id="17"),
        pytest.param(17, "int8", id="17 in int8"),
        pytest.param(24, "fp32", id="24"),
        pytest.param(26, "fp32", id="26"),
    ],
)
def test_opset_changes_the_words_and_not_the_numbers(
    opset: int, precision: Any, program: RewrittenProgram, tmp_path: Path
) -> None:
    images = family("timm_vit").images(2)
    calibration = images.numpy() if precision == "int8" else None

    artifact = target("onnx").emit(
        program, asking(opset, precision=precision, calibration=calibration), tmp_path
    )

    model = onnx.load(tmp_path / artifact.file)
    onnx.checker.check_model(model, full_check=True)
    assert artifact.opset == opset
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": opset}
    assert model.ir_version == IR_VERSIONS[opset]
    session = onnxruntime.InferenceSession(tmp_path / artifact.file, providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {"images": images.numpy()})
    wanted = program(images)[0].numpy()
    assert np.abs(got - wanted).max() < (1e-5 if precision == "fp32" else 0.2 * np.abs(wanted).max())
    assert artifact.probe is not None
    assert len(artifact.probe({"images": images.numpy()})) == 1 + len(program.merging_blocks)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        pytest.param(asking(16), "expected 17 to 26, got 16", id="too old"),
        pytest.param(asking(27), "expected 17 to 26, got 27", id="too new"),
        pytest.param(asking(0), "expected 17 to 26, got 0", id="none"),
        pytest.param(asking(21, precision="bf16"), "bf16 needs 22.*ask for 22, or for fp16", id="bfloat16"),
        pytest.param(
            asking(22, forms=Forms(attention="op")),
            "lowering attention=op needs 23.*got 22; ask for 23, or for attention=decomposed",
            id="Attention operator",
        ),
    ],
)
def test_opset_that_cannot_be_is_refused_before_anything_is_built(
    request_: EmitRequest, words: str, program: RewrittenProgram, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=f"onnx.opset: {words}"):
        target("onnx").emit(program, request_, tmp_path)

    assert list(tmp_path.iterdir()) == []


def one_node(op_type: str, opset: int, **attributes: Any) -> ir.Model:
    given = ir.Value(name="x", shape=ir.Shape([2]), type=ir.TensorType(ir.DataType.FLOAT))
    node = ir.node(op_type, [given], attributes=attributes, name="block_03/node")
    return ir.Model(
        ir.Graph([given], node.outputs, nodes=[node], opset_imports={"": opset}, name="one"), ir_version=10
    )


@pytest.mark.parametrize(
    ("model", "opset", "words"),
    [
        pytest.param(
            one_node("Gelu", 18), 17, r"17 has no Gelu \(block_03/node\); ask for 18", id="no such operator"
        ),
        pytest.param(
            one_node("Split", 18, num_outputs=1),
            17,
            "17 has no Split with num_outputs",
            id="no such attribute",
        ),
        pytest.param(
            one_node("Cast", 24, to=1), 26, r"26 redefines Cast \(block_03/node\)", id="another definition"
        ),
    ],
)
def test_operator_that_an_opset_does_not_have_is_refused_by_name(
    model: ir.Model, opset: int, words: str
) -> None:
    with pytest.raises(UsageError, match=f"onnx.opset: {words}"):
        convert(model, opset)


def test_newest_opset_is_what_both_libraries_know() -> None:
    assert newest() == min(onnx.defs.onnx_opset_version(), OPSETS[-1])
    assert IR_VERSIONS[newest()] <= NEWEST_IR
