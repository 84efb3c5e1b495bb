"""Graphs of a few nodes, written in ONNX's own text form."""

import onnx

from exporter.lint import Device, Engine, LintReport, lint

_CODES = {"float": 1, "float16": 10, "bfloat16": 16}
DOMAINS = ("com.microsoft", "somebody.else")


def model(
    inputs: str, body: str, *, opset: int = 20, outputs: str = "y", weights: str = ""
) -> onnx.ModelProto:
    """Parse a graph.

    Args:
        inputs: `float[2,3] x, int64[1] k`.
        body: `y = Relu(x)`; statements end with a line.
        opset: of the default domain.
        outputs: names. Their types are inferred.
        weights: initializers: `int64[1] k = {3}`.
    """
    imported = ", ".join(
        f'"{domain}" : {version}' for domain, version in [("", opset), *((each, 1) for each in DOMAINS)]
    )
    results = ", ".join(f"float {name}" for name in outputs.split(", "))
    text = (
        f"<ir_version: 10, opset_import: [{imported}]> g ({inputs}) => ({results}) <{weights}> {{ {body} }}"
    )
    parsed = onnx.parser.parse_model(text)
    for value in parsed.graph.output:
        value.ClearField("type")
    return parsed


def rules_broken(graph: onnx.ModelProto, engine: Engine, device: Device = "cpu") -> set[str]:
    """Identifiers of the rules that a graph breaks."""
    return {finding.rule for finding in report(graph, engine, device).findings}


def report(graph: onnx.ModelProto, engine: Engine, device: Device = "cpu") -> LintReport:
    """Lint it."""
    return lint(graph, engine, device=device)


def attention(
    *,
    kind: str = "float16",
    head: int = 64,
    before: str = "p = Softmax<axis = -1>(a)",
    scaled: str = "s = Mul(q, c)",
    after: str = "r = Identity(p)",
    mask: str = "",
    tokens: int = 8,
) -> onnx.ModelProto:
    """Decomposed attention of two heads. A constant `c` of the same type is there to scale with.

    Args:
        kind: of queries, keys and values.
        head: channels of a head.
        before: from the logits `a` to the probabilities `p`.
        scaled: from the query `q` to the scaled query `s`.
        after: from the probabilities `p` to `r`, which meets the values; left out, they meet themselves.
        mask: a further input, `float16[1,1,8,8] m`.
        tokens: queries and keys.
    """
    heads = f"{kind}[1,2,{tokens},{head}]"
    inputs = f"{heads} q, {heads} k, {heads} v" + (f", {mask}" if mask else "")
    last = "y = MatMul(p, v)" if after == "r = Identity(p)" else f"{after}\n y = MatMul(r, v)"
    scale = f"f = Constant<value_float = 0.125>()\n c = Cast<to = {_CODES[kind]}>(f)"
    body = (
        f"{scale}\n {scaled}\n t = Transpose<perm = [0, 1, 3, 2]>(k)\n a = MatMul(s, t)\n {before}\n {last}"
    )
    return model(inputs, body)
