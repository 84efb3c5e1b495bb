"""The shipped `model.onnx`: what is in it, and what must not be."""

import json
import re
from collections import Counter
from pathlib import Path

import onnx
import pytest

from tests.cli.commands import TINY, Build, manifest

Shape = list[int | str]


VARIANTS = {
    "static": (),
    "dynamic": ("--dynamic-batch",),
    "pitome": ("--method", "pitome"),
}
"""What of a tiny model is looked at, beside `vit_digits`."""


@pytest.fixture(params=["digits", *VARIANTS])
def bundle(request: pytest.FixtureRequest, build: Build) -> Path:
    if request.param == "digits":
        folder = request.getfixturevalue("digits_bundle")
        assert isinstance(folder, Path)
        return folder
    return build(*TINY, "--r", "2", *VARIANTS[request.param])


@pytest.fixture
def model(bundle: Path) -> onnx.ModelProto:
    return onnx.load(str(bundle / "model.onnx"))


def shape_of(value: onnx.ValueInfoProto) -> Shape:
    return [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]


def is_static(shape: Shape) -> bool:
    """Every length is known, or a multiple of the free batch."""
    return all(re.fullmatch(r"(\d+\*)?batch", axis) if isinstance(axis, str) else axis > 0 for axis in shape)


def test_checker_accepts_it_in_full(bundle: Path) -> None:
    onnx.checker.check_model(str(bundle / "model.onnx"), full_check=True)


def test_no_scatter_and_only_standard_operators(model: onnx.ModelProto) -> None:
    operators = {(node.domain, node.op_type) for node in model.graph.node}

    assert not [name for _, name in operators if "Scatter" in name]
    assert {domain for domain, _ in operators} <= {"", "ai.onnx"}
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 20)]
    assert len(model.functions) == 0


def test_every_shape_is_known(model: onnx.ModelProto) -> None:
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    values = [*model.graph.input, *model.graph.output, *inferred.graph.value_info]

    unknown = {value.name: shape_of(value) for value in values if not is_static(shape_of(value))}

    assert unknown == {}


def test_recorded_value_shapes_are_static(model: onnx.ModelProto) -> None:
    recorded = {value.name: shape_of(value) for value in model.graph.value_info}

    assert {name: shape for name, shape in recorded.items() if not is_static(shape)} == {}


def test_free_batch_only_where_asked(bundle: Path, model: onnx.ModelProto) -> None:
    first_axes = {shape_of(value)[0] for value in (*model.graph.input, *model.graph.output)}

    assert first_axes == {manifest(bundle)["inputs"][0]["shape"][0]}


def test_initializers_are_shared(model: onnx.ModelProto) -> None:
    contents = Counter(
        (each.data_type, tuple(each.dims), onnx.numpy_helper.to_array(each).tobytes())
        for each in model.graph.initializer
    )

    assert [key[:2] for key, count in contents.items() if count > 1] == []


def test_no_node_carries_traces(model: onnx.ModelProto) -> None:
    assert {len(node.metadata_props) for node in model.graph.node} == {0}
    assert {node.doc_string for node in model.graph.node} == {""}
    assert model.graph.doc_string == ""


def test_metadata_says_what_it_is(bundle: Path, model: onnx.ModelProto) -> None:
    found = manifest(bundle)
    metadata = {entry.key: entry.value for entry in model.metadata_props}

    assert metadata["method"] == found["method"]
    assert metadata["source"] == f"{found['model']['source']}:{found['model']['id']}"
    assert metadata["weights_sha256"] == found["model"]["weights"]["sha256"]
    assert metadata["schedule"] == found["schedule"]["requested"]
    assert metadata["merged"] == ",".join(map(str, found["schedule"]["merged"]))
    assert metadata["tokens"] == ",".join(map(str, found["schedule"]["tokens"]))
    assert json.loads(metadata["preprocess"]) == found["preprocess"]
    assert model.producer_name == "exporter"
