"""What `lint` prints."""

from io import StringIO

from rich.console import Console

from exporter.cli.lint_summary import linted_tree, print_linted, verdict
from tests.unit.lint.small_graphs import attention, model, report


def printed(graph: object, engine: str = "trt") -> str:
    out = StringIO()
    print_linted(Console(file=out, width=200), "model.onnx", report(graph, engine))  # type: ignore[arg-type]
    return out.getvalue()


def test_places_of_one_rule_share_a_row() -> None:
    said = printed(model("float[2,3] x", "a = Det(x)\n y = Det(x)"))
    (row,) = [line for line in said.splitlines() if "│" in line]

    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells[:3] == ["error", "trt-operator", "a (Det) and 1 more"]
    assert cells[4] == "Det"


def test_every_broken_rule_gives_its_reason_and_source() -> None:
    said = printed(attention(kind="float"))

    assert (
        "trt-attention-precision: Fused kernels exist for fp16, bf16 and int8. (TensorRT developer guide"
        in said
    )
    assert "https://github.com/NVIDIA/TensorRT/issues/2981" in said


def test_clean_model_is_one_line() -> None:
    assert printed(model("float[2,3] x", "y = Relu(x)")) == "model.onnx: trt: 0 errors, 0 warnings, 0 notes\n"


def test_verdict_counts_attentions_that_can_be_fused() -> None:
    assert verdict(report(attention(), "trt")) == (
        "trt: 0 errors, 0 warnings, 0 notes; attention can be fused in 1/1 places"
    )
    assert verdict(report(attention(kind="float"), "trt")).endswith("0/1 places")
    assert verdict(report(attention(), "openvino")) == "openvino: 0 errors, 0 warnings, 0 notes"
    assert verdict(report(attention(), "trt-rtx")) == "trt-rtx: 0 errors, 0 warnings, 0 notes"


def test_brackets_in_names_are_text() -> None:
    graph = model("float[2,3] x", "y = Det(x)")
    graph.graph.node[0].name = "[red]block"

    assert "[red]block (Det)" in printed(graph)


def test_tree_names_the_file() -> None:
    tree = linted_tree("model.onnx", report(attention(), "trt"))

    assert (tree["file"], tree["engine"], tree["findings"]) == ("model.onnx", "trt", [])
