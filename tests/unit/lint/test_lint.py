"""Reading models, counting attentions, and what a report holds."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.errors import BundleError, UsageError
from exporter.lint import ENGINES, Engine, lint
from tests.unit.lint.small_graphs import attention, model, report, rules_broken


def with_weights(rows: int) -> onnx.ModelProto:
    graph = model(f"float[1,{rows}] x", "y = MatMul(x, w)")
    weights = np.zeros((rows, rows), np.float16)
    graph.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    return graph


def test_model_in_memory_is_left_as_it_is() -> None:
    graph = with_weights(100)
    before = graph.SerializeToString(deterministic=True)

    report(graph, "trt")

    assert graph.SerializeToString(deterministic=True) == before


def test_large_weights_count_with_their_type() -> None:
    assert "trt-mixed-types" in rules_broken(with_weights(100), "trt")


def test_external_data_need_not_be_there(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(with_weights(100), path, save_as_external_data=True, location="weights", size_threshold=0)
    (tmp_path / "weights").unlink()

    assert "trt-mixed-types" in {finding.rule for finding in lint(path, "trt").findings}


def test_small_constants_in_external_data_are_unknown_and_not_guessed(tmp_path: Path) -> None:
    graph = model("float[1,5000] x", "y, i = TopK(x, k)", outputs="y, i")
    count = onnx.numpy_helper.from_array(np.array([4000], np.int64), "k")
    graph.graph.initializer.append(count)
    path = tmp_path / "model.onnx"
    onnx.save(graph, path, save_as_external_data=True, location="weights", size_threshold=0)

    assert "trt-topk-k" not in {finding.rule for finding in lint(path, "trt").findings}


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x00\x01\x02not a model" * 9, id="something else"),
        pytest.param(model("float[2] x", "y = Relu(x)").SerializeToString()[:40], id="cut short"),
    ],
)
def test_damaged_file_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)

    with pytest.raises(BundleError, match="model.onnx: expected an ONNX model, got") as caught:
        lint(path, "trt")

    assert "\n" not in str(caught.value)


def test_absent_file_and_folder_are_usage_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing.onnx: expected an ONNX file, got nothing there"):
        lint(tmp_path / "nothing.onnx", "trt")
    with pytest.raises(UsageError, match="got a folder: name a file such as BUNDLE/model.onnx"):
        lint(tmp_path, "trt")


def test_unknown_engine_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match='expected an engine of trt, trt-rtx, ort, openvino, got "tensorrt"'):
        lint(model("float[2] x", "y = Relu(x)"), "tensorrt")  # type: ignore[arg-type]


def test_attentions_are_counted_and_those_that_can_be_fused() -> None:
    first = attention().graph
    graph = attention(kind="float")
    for node in first.node:
        renamed = onnx.NodeProto.FromString(node.SerializeToString())
        renamed.input[:] = [f"other_{name}" for name in node.input]
        renamed.output[:] = [f"other_{name}" for name in node.output]
        graph.graph.node.append(renamed)
    for value in first.input:
        value.name = f"other_{value.name}"
        graph.graph.input.append(value)

    found = report(graph, "trt")

    assert (found.attentions, found.fusable) == (2, 1)


def test_softmax_of_a_classifier_is_no_attention() -> None:
    graph = model(
        "float[1,4] x, float[4,4] v",
        "a = MatMul(x, w)\n p = Softmax(a)\n y = MatMul(p, v)",
        weights="float[4,4] w = {1,0,0,0,0,1,0,0,0,0,1,0,0,0,0,1}",
    )

    assert report(graph, "trt").attentions == 0


def test_attention_is_found_through_a_mask_that_is_computed_by_a_product() -> None:
    """The shorter way back from the softmax leads to queries and keys."""
    before = "e = MatMul(m, m)\n g = Neg(e)\n b = Add(a, g)\n p = Softmax<axis = -1>(b)"

    found = report(attention(before=before, mask="float16[1,1,8,8] m"), "trt")

    assert (found.attentions, found.fusable) == (1, 1)


def test_worst_findings_come_first() -> None:
    graph = model("double[4,3] x, int64[2,3] i, double[2,3] u", "z = ScatterElements(x, i, u)\n y = Det(z)")

    severities = [finding.severity for finding in report(graph, "trt").findings]

    assert severities == sorted(severities, key=["error", "warning", "note"].index)
    assert set(severities) == {"error", "warning", "note"}


def test_tree_is_json_and_names_the_source_of_every_broken_rule() -> None:
    found = report(attention(kind="float"), "trt")

    tree = json.loads(json.dumps(found.to_tree()))

    assert tree["counts"] == {"error": 0, "warning": 1, "note": 0}
    assert (tree["attentions"], tree["fusable"]) == (1, 0)
    assert [rule["id"] for rule in tree["rules"]] == ["trt-attention-precision"]
    assert tree["rules"][0]["source"]["address"].startswith("https://")
    assert tree["findings"][0]["node"] == "p"


@given(place=st.integers(min_value=0), flip=st.integers(min_value=1, max_value=255), cut=st.booleans())
def test_damage_ends_in_a_report_or_in_one_line(place: int, flip: int, cut: bool) -> None:
    content = bytearray(attention(kind="float").SerializeToString())
    place %= len(content)
    content[place] ^= flip
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(content[:place] if cut else content)
        said = [outcome(path, engine) for engine in ENGINES]

    assert all("\n" not in line for line in said)


def outcome(path: Path, engine: Engine) -> str:
    try:
        return lint(path, engine).engine
    except BundleError as error:
        return str(error)


def test_constant_query_of_a_pooling_head_is_a_query() -> None:
    """The mask is computed by a product as well, further away."""
    body = """
        t = Transpose<perm = [0, 1, 3, 2]>(k)
        a = MatMul(q, t)
        e = MatMul(u, w)
        g = Log(e)
        b = Add(a, g)
        p = Softmax<axis = -1>(b)
        y = MatMul(p, k)
    """
    weights = "float[1,1,1,2] q = {1, 1}, float[1,1,1,1] u = {1}"

    found = report(model("float[1,1,8,2] k, float[1,1,1,8] w", body, weights=weights), "trt")

    assert found.attentions == 1
    assert "trt-attention-pattern" not in {finding.rule for finding in found.findings}
