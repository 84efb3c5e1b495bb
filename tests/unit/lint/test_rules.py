"""Every rule, against a graph that breaks it and the same graph put right."""

from dataclasses import dataclass, replace

import onnx
import pytest

from exporter.lint import ENGINES, Device, Engine
from exporter.lint.lint import _rules
from tests.unit.lint.small_graphs import attention, model, report, rules_broken


@dataclass(frozen=True)
class Case:
    """A rule with a graph that breaks it and one that does not."""

    rule: str
    breaks: onnx.ModelProto
    passes: onnx.ModelProto
    device: Device = "cpu"
    label: str = ""

    @property
    def engine(self) -> Engine:
        """The engine whose rule it is."""
        return max((engine for engine in ENGINES if self.rule.startswith(f"{engine}-")), key=len)


def unary(operator: str, kind: str = "float", opset: int = 20) -> onnx.ModelProto:
    return model(f"{kind}[2,3] x", f"y = {operator}(x)", opset=opset)


def top_k(
    k: int, shape: str = "1,5000", attributes: str = "axis = -1", kind: str = "float"
) -> onnx.ModelProto:
    return model(
        f"{kind}[{shape}] x",
        f"y, i = TopK<{attributes}>(x, k)",
        outputs="y, i",
        weights=f"int64[1] k = {{{k}}}",
    )


def scatter(operator: str, reduction: str, kind: str = "float", indices: str = "int64") -> onnx.ModelProto:
    return model(
        f"{kind}[4,3] x, {indices}[2,3] i, {kind}[2,3] u",
        f'y = {operator}<reduction = "{reduction}">(x, i, u)',
    )


def reduce(axes: str) -> onnx.ModelProto:
    body = f"{axes}\n y = ReduceSum(x, a)"
    return model("float[2,3] x", body, weights="int64[1] one = {1}, int64[1] zero = {0}")


def quantized(zero: str) -> onnx.ModelProto:
    body = "h = QuantizeLinear(x, s, z)\n y = DequantizeLinear(h, s, z)"
    return model("float[2,3] x", body, weights=f"float s = {{0.5}}, {zero}")


def operator_attention(
    mask: str = "float16[1,1,8,8] m", opset: int = 23, rank: str = "1,2,8,64"
) -> onnx.ModelProto:
    inputs = ", ".join(f"float16[{rank}] {name}" for name in "qkv")
    heads = "<q_num_heads = 2, kv_num_heads = 2>" if rank.count(",") == 2 else ""
    return model(f"{inputs}, {mask}", f"y = Attention{heads}(q, k, v, m)", opset=opset)


def operator_attention_without_mask(kind: str = "float16", head: int = 64) -> onnx.ModelProto:
    inputs = ", ".join(f"{kind}[1,2,8,{head}] {name}" for name in "qkv")
    return model(inputs, "y = Attention(q, k, v)", opset=23)


def attention_of_queries(count: int) -> onnx.ModelProto:
    inputs = f"float16[1,{count},128] q, float16[1,8,128] k, float16[1,8,128] v"
    return model(inputs, "y = Attention<q_num_heads = 2, kv_num_heads = 2>(q, k, v)", opset=23)


def own_attention(tokens: int) -> onnx.ModelProto:
    heads = f"float16[1,{tokens},128]"
    return model(
        f"{heads} q, {heads} k, {heads} v, float16[1,2,{tokens},{tokens}] m",
        "y = com.microsoft.MultiHeadAttention<num_heads = 2>(q, k, v, , , m)",
    )


def attention_of_quantized(head: int) -> onnx.ModelProto:
    heads = ", ".join(f"int8[1,2,8,{head}] {name}" for name in "qkv")
    body = """
        s = DequantizeLinear(q, w)
        d = DequantizeLinear(k, w)
        t = Transpose<perm = [0, 1, 3, 2]>(d)
        a = MatMul(s, t)
        p = Softmax<axis = -1>(a)
        n = QuantizeLinear(p, w, z)
        r = DequantizeLinear(n, w)
        e = DequantizeLinear(v, w)
        y = MatMul(r, e)
    """
    return model(heads, body, weights="float w = {0.5}, int8 z = {0}")


def newer_file(version: int) -> onnx.ModelProto:
    graph = unary("Relu")
    graph.ir_version = version
    return graph


MASKED = "b = Add(a, m)\n p = Softmax<axis = -1>(b)"
BRANCH = """
    c = Cast<to = 9>(x)
    y = If (c) <
        then_branch = yes () => (float[1] a) { a = Relu(x) },
        else_branch = no () => (float[1] b) { b = Neg(x) }
    >
"""

CASES: tuple[Case, ...] = (
    Case("trt-opset", unary("Relu", opset=25), unary("Relu", opset=24)),
    Case("trt-opset", unary("Relu", opset=8), unary("Relu", opset=9), label="old"),
    Case("trt-operator", unary("Det"), unary("Relu")),
    Case("trt-operator", unary("somebody.else.Relu"), unary("Relu"), label="domain"),
    Case("trt-topk-k", top_k(3841), top_k(3840)),
    Case("trt-topk-sorted", top_k(3, attributes="sorted = 0"), top_k(3, attributes="sorted = 1")),
    Case("trt-topk-axis", top_k(2, "8,1,1,1,3", "axis = 0"), top_k(2, "8,1,1,3", "axis = 0")),
    Case(
        "trt-topk-axis",
        top_k(2, "8,1,1,1,3", "axis = -5"),
        top_k(2, "1,8,1,1,3", "axis = -4"),
        label="negative",
    ),
    Case("trt-topk-type", top_k(2, kind="double"), top_k(2, kind="int64")),
    Case("trt-scatternd-reduction", scatter("ScatterND", "add"), scatter("ScatterND", "none")),
    Case("trt-scatter-plugin", scatter("ScatterElements", "add"), scatter("ScatterElements", "none")),
    Case(
        "trt-scatter-plugin-types",
        scatter("ScatterElements", "add", "bfloat16"),
        scatter("ScatterElements", "add", "float16"),
    ),
    Case(
        "trt-scatter-plugin-types",
        scatter("ScatterElements", "add", indices="int32"),
        scatter("ScatterElements", "add", indices="int64"),
        label="indices",
    ),
    Case(
        "trt-scatter",
        scatter("ScatterElements", "none"),
        model("float[4,3] x, int64[2,3] i", "y = GatherElements(x, i)"),
    ),
    Case(
        "trt-onehot-depth",
        model("int64[3] x, int64 d, float[2] v", "y = OneHot(x, d, v)"),
        model("int64[3] x, float[2] v", "y = OneHot(x, d, v)", weights="int64 d = {4}"),
    ),
    Case("trt-constant-axes", reduce("a = Add(one, zero)"), reduce("a = Constant<value_ints = [1]>()")),
    Case(
        "trt-constant-axes",
        model("float[2,3] x, int64[1] a", "y = Unsqueeze(x, a)"),
        model("float[2,3] x", "y = Unsqueeze(x, a)", weights="int64[1] a = {0}"),
        label="unsqueeze",
    ),
    Case(
        "trt-layernorm-outputs",
        model("float[2,3] x, float[3] w", "y, m = LayerNormalization(x, w)", outputs="y, m"),
        model("float[2,3] x, float[3] w", "y = LayerNormalization(x, w)"),
    ),
    Case(
        "trt-resize-antialias",
        model(
            "float[1,3,8,8] x",
            'y = Resize<antialias = 1, mode = "linear">(x, , s)',
            weights="float[4] s = {1,1,2,2}",
        ),
        model("float[1,3,8,8] x", 'y = Resize<mode = "linear">(x, , s)', weights="float[4] s = {1,1,2,2}"),
    ),
    Case("trt-zero-point", quantized("int8 z = {3}"), quantized("int8 z = {0}")),
    Case(
        "trt-dropout",
        model("float[2,3] x", "y = Dropout(x, r, t)", weights="float r = {0.5}, bool t = {1}"),
        model("float[2,3] x", "y = Dropout(x, r, t)", weights="float r = {0.5}, bool t = {0}"),
    ),
    Case(
        "trt-mixed-types",
        model("float[2] x, float16[2] z", "y = Add(x, z)"),
        model("float16[2] x, float16[2] z", "y = Add(x, z)"),
    ),
    Case(
        "trt-mixed-types",
        model("float16[2] x, float e", "y = Pow(x, e)"),
        model("float16[2] x, float16 e", "y = Pow(x, e)"),
        label="pow",
    ),
    Case(
        "trt-mixed-types",
        model("bool[2] c, float16[2] x", "y = Where(c, x, z)", weights="float z = {0}"),
        model("bool[2] c, float[2] x", "y = Where(c, x, z)", weights="float z = {0}"),
        label="where",
    ),
    Case("trt-operator-type", unary("NonZero", "bfloat16"), unary("NonZero", "float16")),
    Case("trt-operator-type", unary("Sqrt", "int64"), unary("Abs", "int64"), label="integers"),
    Case("trt-data-type", unary("Neg", "int16"), unary("Neg", "int32")),
    Case("trt-uint8", unary("Neg", "uint8"), model("uint8[2,3] x", "y = Cast<to = 1>(x)")),
    Case("trt-uint8", quantized("uint8 z = {0}"), quantized("int8 z = {0}"), label="quantised"),
    Case("trt-quantized-type", unary("Neg", "int8"), quantized("int8 z = {0}")),
    Case("trt-quantized-type", model("float[2] x", "y = Cast<to = 3>(x)"), unary("Neg"), label="cast"),
    Case("trt-double", unary("Neg", "double"), unary("Neg", "float")),
    Case("trt-dynamic-input", model("float[2,n] x", "y = Neg(x)"), model("float[batch,3] x", "y = Neg(x)")),
    Case(
        "trt-dynamic-shape",
        model("float[2,3] x, int64[1] s", "y = Reshape(x, s)"),
        model("float[2,3] x", "y = Reshape(x, s)", weights="int64[1] s = {6}"),
    ),
    Case("trt-data-dependent", unary("NonZero"), unary("Not", "bool")),
    Case(
        "trt-data-dependent",
        model(
            "float[2,3] x",
            "n = ReduceSum<keepdims = 0>(x)\n c = Cast<to = 7>(n)\n y = Range(o, c, i)",
            weights="int64 o = {0}, int64 i = {1}",
        ),
        model(
            "float[2,3] x",
            "n = Shape(x)\n c = ReduceProd<keepdims = 0>(n)\n y = Range(o, c, i)",
            weights="int64 o = {0}, int64 i = {1}",
        ),
        label="range",
    ),
    Case("trt-control-flow", model("float[1] x", BRANCH), model("float[1] x", "y = Relu(x)")),
    Case("trt-attention-operator", operator_attention(rank="1,8,128"), operator_attention()),
    Case("trt-attention-operator", operator_attention("float16[8,8] m"), operator_attention(), label="mask"),
    Case("trt-attention-operator-mask", operator_attention("float16[1,1,1,8] m"), operator_attention()),
    Case("trt-attention-operator-mask-type", operator_attention("float[1,1,8,8] m"), operator_attention()),
    Case("trt-attention-scale", attention(before="d = Div(a, c)\n p = Softmax<axis = -1>(d)"), attention()),
    Case("trt-attention-pattern", attention(before="d = Clip(a)\n p = Softmax<axis = -1>(d)"), attention()),
    Case(
        "trt-attention-pattern",
        attention(before="d = Cast<to = 1>(a)\n e = Softmax<axis = -1>(d)\n p = Cast<to = 10>(e)"),
        attention(),
        label="casts",
    ),
    Case("trt-attention-pattern", attention(before="p = Softmax<axis = 1>(a)"), attention(), label="axis"),
    Case("trt-attention-pattern", attention(after="r = Sqrt(p)"), attention(), label="behind the softmax"),
    Case(
        "trt-attention-pattern",
        attention(before="b = Add(a, m)\n d = Add(b, m)\n p = Softmax(d)", mask="float16[1,1,8,8] m"),
        attention(before=MASKED, mask="float16[1,1,8,8] m"),
        label="two masks",
    ),
    Case("trt-attention-precision", attention(kind="float"), attention(kind="bfloat16")),
    Case("trt-attention-head-size", attention(head=264), attention(head=256)),
    Case("trt-attention-head-size", attention(head=8), attention(head=16), label="small"),
    Case("trt-attention-head-padding", attention(head=65), attention(head=72)),
    Case("trt-attention-int8", attention_of_quantized(128), attention_of_quantized(64)),
    Case(
        "trt-attention-mask",
        attention(before=MASKED, mask="float16[1,1,1,8] m"),
        attention(before=MASKED, mask="float16[1,1,8,8] m"),
    ),
    Case("trt-rtx-operator", unary("NonZero"), unary("Relu")),
    Case("trt-rtx-operator", unary("somebody.else.Relu"), unary("Relu"), label="domain"),
    Case("trt-rtx-operator-type", unary("HardSwish", "bfloat16"), unary("HardSwish", "float16")),
    Case("trt-rtx-operator-type", unary("Sqrt", "int64"), unary("Abs", "int64"), label="integers"),
    Case(
        "trt-rtx-mixed-types",
        model("float[2] x, float16[2] z", "y = Add(x, z)"),
        model("float16[2] x, float e", "y = Pow(x, e)"),
    ),
    Case("trt-rtx-uint8", unary("Neg", "uint8"), quantized("uint8 z = {0}")),
    Case("trt-rtx-scatter-reduction", scatter("ScatterElements", "add"), scatter("ScatterElements", "none")),
    Case(
        "trt-rtx-scatter-reduction",
        scatter("ScatterND", "add"),
        scatter("ScatterElements", "none"),
        label="ScatterND",
    ),
    Case(
        "trt-rtx-attention-kernel",
        operator_attention_without_mask("float"),
        operator_attention_without_mask("float16"),
    ),
    Case("trt-rtx-attention-kernel", attention_of_queries(1), attention_of_queries(2), label="one query"),
    Case("ort-opset", unary("Relu", opset=27), unary("Relu", opset=26)),
    Case("ort-ir-version", newer_file(14), newer_file(13)),
    Case("ort-domain", unary("somebody.else.Relu"), unary("com.microsoft.Gelu")),
    Case("ort-cpu-kernel", unary("Neg", "bfloat16"), unary("Neg", "float16")),
    Case("ort-attention-mask", operator_attention("float16[1,1,1,8] m"), operator_attention()),
    Case("ort-attention-unfused", attention(), operator_attention()),
    Case("ort-attention-unfused", own_attention(12), own_attention(16), label="alignment"),
    Case(
        "ort-attention-unfused",
        operator_attention_without_mask(head=60),
        operator_attention_without_mask(head=64),
        label="head",
    ),
    Case("ort-attention-kernel", operator_attention(), operator_attention_without_mask()),
    Case(
        "ort-attention-kernel",
        operator_attention_without_mask("float"),
        operator_attention_without_mask("float16"),
        label="fp32",
    ),
    Case("ort-own-domain", unary("com.microsoft.Gelu"), unary("Gelu")),
    Case("openvino-operator", unary("Det"), unary("Relu")),
    Case("openvino-operator", unary("somebody.else.Relu"), unary("com.microsoft.Gelu"), label="domain"),
    Case("openvino-sequence", unary("SequenceConstruct"), unary("Identity")),
    Case("openvino-rank", model("float[2,3] x, int64[n] s", "y = Reshape(x, s)"), unary("Relu")),
    Case("openvino-community", unary("com.microsoft.Gelu"), unary("Gelu")),
)
SHARED = (
    "topk-k",
    "constant-axes",
    "layernorm-outputs",
    "resize-antialias",
    "zero-point",
    "dropout",
    "data-type",
    "attention-operator-mask-type",
)
"""Rules of TensorRT that TensorRT for RTX has too."""

CASES = (
    *CASES,
    *(
        replace(case, rule=f"trt-rtx-{name}")
        for name in SHARED
        for case in CASES
        if case.rule == f"trt-{name}"
    ),
)

PARAMS = [pytest.param(case, id=f"{case.rule}{' ' if case.label else ''}{case.label}") for case in CASES]


@pytest.mark.parametrize("case", PARAMS)
def test_graph_that_breaks_the_rule_is_found_and_the_one_that_keeps_it_is_not(case: Case) -> None:
    assert case.rule in rules_broken(case.breaks, case.engine, case.device)
    assert case.rule not in rules_broken(case.passes, case.engine, case.device)


@pytest.mark.parametrize("engine", ENGINES)
def test_every_rule_has_a_case_a_reason_and_a_source(engine: Engine) -> None:
    cards = [rule.card for rule in _rules(engine)]

    assert sorted({card.id for card in cards}) == sorted(
        {case.rule for case in CASES if case.engine == engine}
    )
    assert len({card.id for card in cards}) == len(cards)
    assert all(card.why.endswith(".") and card.source.title for card in cards)
    assert all(card.source.address.startswith("https://") for card in cards)


def test_bfloat16_is_refused_on_the_cpu_only() -> None:
    graph = unary("Neg", "bfloat16")

    assert "ort-cpu-kernel" in rules_broken(graph, "ort", "cpu")
    assert "ort-cpu-kernel" not in rules_broken(graph, "ort", "cuda")


def test_finding_says_what_was_expected_and_what_is_there() -> None:
    (finding,) = report(top_k(4000), "trt").errors

    assert (finding.expected, finding.got) == ("K of at most 3840", "4000")
    assert str(finding) == (
        "trt-topk-k: y (TopK): expected K of at most 3840, got 4000: "
        "merge or keep fewer tokens per block, or use smaller images"
    )


def test_inner_graphs_are_read() -> None:
    inner = BRANCH.replace("Neg(x)", "Det(x)")

    assert "trt-operator" in rules_broken(model("float[1] x", inner), "trt")


def test_functions_of_the_model_are_looked_into() -> None:
    graph = onnx.parser.parse_model(
        """
        <ir_version: 10, opset_import: ["" : 20, "local" : 1]> g (float[2,2] x) => (float y) { y = local.mine(x) }
        <opset_import: ["" : 20], domain: "local"> mine (x) => (y) { y = Det(x) }
        """
    )

    (finding,) = report(graph, "openvino").errors

    assert finding.operator == "Det"


def test_batch_may_be_free_and_sizes_that_follow_from_it() -> None:
    body = "n = Shape<start = 0, end = 1>(x)\n s = Concat<axis = 0>(n, r)\n y = Reshape(x, s)"
    graph = model("float[batch,2,3] x", body, weights="int64[1] r = {6}")
    graph.graph.value_info.append(
        onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", 6])
    )

    assert rules_broken(graph, "trt") == set()
