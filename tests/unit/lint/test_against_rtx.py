"""The rules for TensorRT for RTX against the real library: its parser and builder refuse what they say."""

from collections.abc import Callable
from typing import Any

import onnx
import pytest
from onnx import TensorProto

from exporter.lint.trt_rtx_rules import HEAD_SIZES, SUPPORTED
from exporter.targets.trt.library import Log
from tests.unit.lint.small_graphs import rules_broken
from tests.unit.lint.test_against_engines import graph_of
from tests.unit.lint.test_rules import CASES, Case, operator_attention_without_mask, unary

Refusal = Callable[[onnx.ModelProto], str]

TYPES = {
    "fp32": TensorProto.FLOAT,
    "fp16": TensorProto.FLOAT16,
    "bf16": TensorProto.BFLOAT16,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "bool": TensorProto.BOOL,
    "uint8": TensorProto.UINT8,
}

ODD = {"Gather", "GatherElements", "Mod", "Scatter", "ScatterElements", "ScatterND", "Sum", "TopK", "Where"}
"""Operators whose inputs are of several types, or which take another form for some."""

OWN = [pytest.param(case, id=f"{case.rule} {case.label}") for case in CASES if case.engine == "trt-rtx"]


@pytest.fixture
def parser(rtx: Any) -> Callable[[onnx.ModelProto], tuple[Any, Any, str]]:
    """Parses a graph into a network: the builder, the network, and why it is refused."""

    def parse(graph: onnx.ModelProto) -> tuple[Any, Any, str]:
        log = Log(rtx)
        builder = rtx.Builder(log.logger)
        network = builder.create_network(1 << int(rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        reading = rtx.OnnxParser(network, log.logger)
        typed = onnx.shape_inference.infer_shapes(graph)
        taken = reading.parse(typed.SerializeToString())
        return builder, network, "" if taken else log.reason("it does not say why")

    return parse


@pytest.fixture
def refusal(parser: Callable[[onnx.ModelProto], tuple[Any, Any, str]]) -> Refusal:
    """Why a graph does not become an engine; empty if it does."""

    def refused(graph: onnx.ModelProto) -> str:
        builder, network, reason = parser(graph)
        if reason:
            return reason
        built = builder.build_serialized_network(network, builder.create_builder_config())
        return "" if built is not None else "the builder refuses it"

    return refused


@pytest.mark.parametrize("case", OWN)
def test_library_refuses_what_breaks_a_rule_and_takes_what_keeps_it(case: Case, refusal: Refusal) -> None:
    assert refusal(case.breaks)
    assert refusal(case.passes) == ""


@pytest.mark.parametrize("kind", ["float", "float16", "bfloat16"])
@pytest.mark.parametrize("head", [HEAD_SIZES[0] - 1, HEAD_SIZES[0], HEAD_SIZES[-1], HEAD_SIZES[-1] + 1])
def test_library_and_the_rule_agree_on_attention_operators(kind: str, head: int, refusal: Refusal) -> None:
    graph = operator_attention_without_mask(kind, head)

    assert bool(refusal(graph)) == ("trt-rtx-attention-kernel" in rules_broken(graph, "trt-rtx"))


def test_library_knows_the_operators_of_the_table_and_no_others(rtx: Any) -> None:
    log = Log(rtx)
    network = rtx.Builder(log.logger).create_network()
    parser = rtx.OnnxParser(network, log.logger)
    names = {schema.name for schema in onnx.defs.get_all_schemas_with_history() if schema.domain == ""}

    known = {name for name in names if parser.supports_operator(name)}

    assert set(SUPPORTED) == known - {"NonZero"}  # whose importer looks for a plugin that is not there


def test_library_takes_operators_in_the_types_of_the_table(
    parser: Callable[[onnx.ModelProto], tuple[Any, Any, str]],
) -> None:
    wrong, tried = [], 0
    for name in sorted(SUPPORTED.keys() - ODD):
        found = {kind: parses(parser, name, code) for kind, code in TYPES.items()}
        if not any(found.values()):
            continue  # one node of that operator says too little, whatever the type
        tried += 1
        ruled = {kind: not broken(name, code) for kind, code in TYPES.items() if found[kind] is not None}
        wrong += [f"{name} {kind}: {found[kind]}" for kind in ruled if ruled[kind] != found[kind]]

    assert wrong == []
    assert tried > 90


def parses(
    parser: Callable[[onnx.ModelProto], tuple[Any, Any, str]], operator: str, code: int
) -> bool | None:
    """Whether one node of an operator is taken in a type; None where ONNX has none of its like."""
    try:
        graph = onnx.shape_inference.infer_shapes(graph_of(operator, code), strict_mode=True)
    except (onnx.defs.SchemaError, onnx.shape_inference.InferenceError):
        return None
    if not all(output.type.tensor_type.elem_type for output in graph.graph.output):
        return None
    return not parser(graph)[2]


def broken(operator: str, code: int) -> bool:
    rules = rules_broken(graph_of(operator, code), "trt-rtx")
    return bool(rules & {"trt-rtx-operator-type", "trt-rtx-uint8"})


def test_documented_limits_that_the_library_has_not_are_no_rules(refusal: Refusal) -> None:
    for graph in (unary("Relu", opset=25), unary("Relu", opset=8)):
        assert refusal(graph) == ""
        assert rules_broken(graph, "trt-rtx") == set()
