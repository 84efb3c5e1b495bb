"""The rules' data against the engines that are installed here. TensorRT is not: of its table, the names are checked."""

import re
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from exporter.lint.openvino_rules import NOT_CONVERTED
from exporter.lint.ort_rules import NEWEST_IR, OPSETS, REFUSED_ON_CPU
from exporter.lint.trt_operators import SUPPORTED
from tests.unit.lint.small_graphs import model, rules_broken

CODES = {"bf16": TensorProto.BFLOAT16, "fp64": TensorProto.DOUBLE, "fp32": TensorProto.FLOAT}

REFUSALS = [
    pytest.param(kind, operator, id=f"{operator} {kind}")
    for kind, operators in REFUSED_ON_CPU.items()
    for operator in sorted(operators)
]

SHAPES = {"Conv": ([1, 3, 8, 8], [4, 3, 2, 2]), "Gemm": ([4, 4], [4, 4])}
ATTRIBUTES = {"Einsum": {"equation": "bhij,bhjk->bhik"}}
WEIGHTS = {
    "Expand": (1, 1, 1, 1),
    "Pad": (0, 0, 0, 0, 1, 0, 0, 0),
    "ReduceL2": (1,),
    "ReduceMax": (1,),
    "ReduceMean": (1,),
    "ReduceSum": (1,),
    "Tile": (1, 1, 1, 1),
    "TopK": (3,),
}

LEGACY = {"ImageScaler", "ParametricSoftplus", "ScaledTanh"}
"""Operators of ONNX's first years, which its schemas do not have any more."""


def graph_of(operator: str, data_type: int) -> onnx.ModelProto:
    """One operator on inputs of a type."""
    schema = onnx.defs.get_schema(operator, 23)
    floats = 1 if operator in WEIGHTS else max(1, schema.min_input)
    floats = 2 if operator in ("Einsum", "Max", "Min") else floats
    shapes = SHAPES.get(operator, ([2, 4, 8, 8],) * floats)
    inputs = [
        helper.make_tensor_value_info(f"x{index}", data_type, shape) for index, shape in enumerate(shapes)
    ]
    if operator == "RMSNormalization":
        inputs[1] = helper.make_tensor_value_info("x1", data_type, [8])
    held = WEIGHTS.get(operator)
    weights = [helper.make_tensor("w", TensorProto.INT64, [len(held)], held)] if held else []
    outputs = [helper.make_empty_tensor_value_info(f"y{index}") for index in range(max(1, schema.min_output))]
    node = helper.make_node(
        operator,
        [*(value.name for value in inputs), *(tensor.name for tensor in weights)],
        [value.name for value in outputs],
        **ATTRIBUTES.get(operator, {}),
    )
    graph = helper.make_graph([node], "g", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)


def refusal(graph: onnx.ModelProto, given: dict[str, np.ndarray[Any, Any]] | None = None) -> str:
    """Return why ONNX Runtime does not load a model, or run it; empty if it does."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(
            graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        if given is not None:
            session.run(None, given)
    except Exception as error:  # onnxruntime's own types derive from Exception only
        return str(error)
    return ""


@pytest.mark.parametrize(("kind", "operator"), REFUSALS)
def test_onnx_runtime_refuses_what_the_table_says_and_takes_it_in_fp32(kind: str, operator: str) -> None:
    graph, in_fp32 = graph_of(operator, CODES[kind]), graph_of(operator, CODES["fp32"])

    assert re.search("NOT_IMPLEMENTED|Type .* is invalid", refusal(graph))
    assert "ort-cpu-kernel" in rules_broken(graph, "ort")
    assert refusal(in_fp32) == ""
    assert "ort-cpu-kernel" not in rules_broken(in_fp32, "ort")


def test_onnx_runtime_stops_at_these_versions() -> None:
    graphs = []
    for opset, version in ((OPSETS[-1], NEWEST_IR), (OPSETS[-1] + 1, NEWEST_IR), (OPSETS[-1], NEWEST_IR + 1)):
        graph = model("float[2] x", "y = Neg(x)", opset=opset)
        graph.ir_version = version
        graphs.append(graph)

    taken, too_new, too_new_a_file = map(refusal, graphs)

    assert taken == ""
    assert "official support for domain ai.onnx is till opset 26" in too_new
    assert "max supported IR version: 13" in too_new_a_file


@pytest.mark.parametrize("shape", [(1, 1, 1, 6), (2, 1, 1, 6), (1, 6), (2, 1, 6, 6), (6, 6), (1, 6, 6)])
def test_onnx_runtime_and_the_rule_agree_on_masks(shape: tuple[int, ...]) -> None:
    sizes = ",".join(map(str, shape))
    heads = ", ".join(f"float[2,3,6,8] {name}" for name in "qkv")
    graph = model(f"{heads}, float[{sizes}] m", "y = Attention(q, k, v, m)", opset=23)
    given = {name: np.zeros((2, 3, 6, 8), np.float32) for name in "qkv"} | {"m": np.zeros(shape, np.float32)}

    refused = refusal(graph, given)

    assert ("inconsistent q_sequence_length" in refused) == bool(refused)
    assert bool(refused) == ("ort-attention-mask" in rules_broken(graph, "ort"))


def test_openvino_converts_none_of_these_operators_and_the_others_of_an_encoder() -> None:
    core = pytest.importorskip("openvino").Core()
    taken = []
    others = ["Add", "Gelu", "LayerNormalization", "MatMul", "Softmax", "TopK"]
    for operator in (*sorted(NOT_CONVERTED), *others):
        try:
            core.read_model(one_node(operator).SerializeToString())
        except RuntimeError as error:
            if "No conversion rule found" in str(error):
                continue
        taken.append(operator)

    assert taken == others


def one_node(operator: str) -> onnx.ModelProto:
    """One operator with as many inputs and outputs as it needs."""
    schema = onnx.defs.get_schema(operator, 26)
    count = min(max(1, schema.min_input), schema.max_input)
    names = ", ".join(f"float[1,2,4,4] x{index}" for index in range(count))
    results = ", ".join(f"y{index}" for index in range(max(1, schema.min_output)))
    given = ", ".join(f"x{index}" for index in range(count))
    return model(names, f"{results} = {operator}({given})", opset=26, outputs=results)


def test_names_in_the_table_of_tensorrt_are_operators() -> None:
    known = {schema.name for schema in onnx.defs.get_all_schemas_with_history() if schema.domain == ""}

    assert set(SUPPORTED) - known == LEGACY
