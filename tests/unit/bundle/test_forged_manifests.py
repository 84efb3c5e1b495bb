"""A manifest whose digest is right can still be impossible: other types, numbers out of range, lists that disagree."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exporter.bundle import load_bundle
from exporter.bundle.manifest import digest_of
from exporter.errors import BundleError
from exporter.records import canonical_json, to_tree

Change = Callable[[dict[str, Any]], object]


def at(*path: str | int, value: object) -> Change:
    """Sets one value of a manifest."""

    def change(tree: Any) -> None:
        for key in path[:-1]:
            tree = tree[key]
        tree[path[-1]] = value

    return change


BEYOND = "expected a number within 64 bits, got "
FORGED = [
    pytest.param(at("gmacs", "dense", value=10**400), f"gmacs.dense: {BEYOND}1000", id="float of 400 digits"),
    pytest.param(at("gmacs", "dense", value=-(2**70)), f"gmacs.dense: {BEYOND}-1180", id="float of 70 bits"),
    pytest.param(
        at("gmacs", "blocks", value=[1.0, 1e300]), f"gmacs.blocks[1]: {BEYOND}1e+300", id="float of a list"
    ),
    pytest.param(at("tokens_protected", value=2**70), f"tokens_protected: {BEYOND}", id="integer"),
    pytest.param(
        at("artifacts", "onnx", "opset", value=10**40), f"artifacts.onnx.opset: {BEYOND}", id="opset"
    ),
    pytest.param(
        at("artifacts", "onnx", "details", value={"a": [{"b": 10**400}]}),
        f"artifacts.onnx.details.a[0].b: {BEYOND}",
        id="details",
    ),
    pytest.param(
        at("preprocess", "image_size", value=[8, 10**400]), f"preprocess.image_size[1]: {BEYOND}", id="size"
    ),
    pytest.param(at("inputs", 0, "shape", 1, value=2**70), f"inputs[0].shape[1]: {BEYOND}", id="shape"),
    pytest.param(
        at("schedule", "tokens", value=[17, 13]), "schedule.tokens: expected 3 counts", id="short tokens"
    ),
    pytest.param(at("schedule", "tokens", value=[]), "schedule.tokens: expected 3 counts", id="no tokens"),
    pytest.param(at("schedule", "merged", value=[]), "schedule.tokens: expected 1 counts", id="no blocks"),
    pytest.param(
        at("schedule", "merged", value=[0] * 5000), "at most 4096 blocks, got 5000", id="many blocks"
    ),
    pytest.param(
        at("schedule", "merged", 0, value=-4), "schedule.merged: expected numbers", id="negative merge"
    ),
    pytest.param(
        at("schedule", "tokens", 1, value=0), "schedule.tokens: expected numbers from 1", id="no token"
    ),
    pytest.param(
        at("schedule", "tokens", 0, value=2**40), "schedule.tokens: expected numbers", id="many tokens"
    ),
    pytest.param(
        at("tokens_protected", value=-1), "tokens_protected: expected numbers from 0", id="protected"
    ),
    pytest.param(
        at("tokens_read", value={"by": "Llava", "dense": 16, "given": 17}),
        "tokens_read: expected at least one token, and no more than 16, got 17",
        id="more tokens read than there are",
    ),
    pytest.param(
        at("gmacs", "blocks", value=[1.0]),
        "gmacs.blocks: expected 2 numbers, one per block",
        id="short gmacs",
    ),
    pytest.param(at("gmacs", "blocks", value=[]), "gmacs.blocks: expected 2 numbers", id="no gmacs"),
    pytest.param(
        at("gmacs", "executed", value=-1), "gmacs: expected no negative number", id="negative gmacs"
    ),
    pytest.param(
        at("parity", "onnx", "match_agreement", value=[1.0] * 3),
        "expected at most 2 shares",
        id="long agreement",
    ),
    pytest.param(at("inputs", value=[]), "inputs: expected at least one, got none", id="no input"),
    pytest.param(at("outputs", value=[]), "outputs: expected at least one", id="no output"),
    pytest.param(at("outputs", 0, "name", value="images"), "a name of its own for each", id="same name"),
    pytest.param(at("inputs", 0, "dtype", value="object"), "inputs[0].dtype: expected one of", id="objects"),
    pytest.param(
        at("inputs", 0, "dtype", value="(9,9)f4"), "inputs[0].dtype: expected one of", id="array of arrays"
    ),
    pytest.param(at("inputs", 0, "shape", value=[]), "inputs[0].shape: expected lengths", id="scalar"),
    pytest.param(at("inputs", 0, "shape", 0, value=0), "inputs[0].shape: expected lengths", id="no images"),
    pytest.param(at("inputs", 0, "shape", 0, value="many"), "inputs[0].shape: expected lengths", id="word"),
    pytest.param(
        at("inputs", 0, "shape", 2, value="batch"), "inputs[0].shape: expected lengths", id="open side"
    ),
    pytest.param(
        at("inputs", 0, "shape", 0, value=2**31 - 1), "inputs[0].shape: expected lengths", id="huge batch"
    ),
    pytest.param(
        at("outputs", 0, "shape", 1, value=-1), "outputs[0].shape: expected lengths", id="negative length"
    ),
    pytest.param(at("tower", value="third"), 'tower: expected image or text, got "third"', id="tower"),
    pytest.param(at("layout", value="chw"), "layout: expected nchw or nhwc", id="layout"),
    pytest.param(at("input", value="x" * 5000), "input: expected float or uint8", id="input"),
    *(
        pytest.param(at("files", name, value="00" * 32), "expected a path inside the bundle", id=name)
        for name in ("../outside", "/etc/hostname", "openvino/../../outside")
    ),
    pytest.param(
        at("artifacts", "onnx", "file", value="../outside"),
        "artifacts.onnx: ../outside is not among the bundle's files",
        id="artifact outside",
    ),
    pytest.param(at("name", value=3), "name: expected a text, got 3", id="type"),
    pytest.param(at("tokens_protected", value=True), "expected a whole number, got true", id="boolean"),
    pytest.param(at("passes", value={"a": 1}), 'passes: expected a list, got {"a": 1}', id="container"),
    pytest.param(at("gmacs", value={"dense": 1.0}), 'gmacs: missing key "reduced"', id="missing"),
    pytest.param(at("nmae", value="x"), 'unknown key "nmae". Did you mean "name"?', id="unknown"),
]


def forge(path: Path, change: Change) -> None:
    """Change a bundle's manifest, and seal it again."""
    tree = to_tree(load_bundle(path).manifest)
    change(tree)
    tree["digest"] = digest_of(tree)
    (path / "manifest.json").write_bytes(canonical_json(tree))


@pytest.mark.parametrize(("change", "message"), FORGED)
def test_manifest_that_cannot_be_is_refused_by_its_key(
    bundle_path: Path, change: Change, message: str
) -> None:
    forge(bundle_path, change)
    with pytest.raises(BundleError) as caught:
        load_bundle(bundle_path)
    assert message in str(caught.value)
    assert str(caught.value).endswith("; export the bundle again")
    assert len(str(caught.value)) < len(str(bundle_path)) + 200


@pytest.mark.parametrize(
    ("key", "value"),
    [
        pytest.param("image_size", [0, 8], id="no pixels"),
        pytest.param("image_size", [2**40, 8], id="many pixels"),
        pytest.param("image_size", [8], id="one side"),
        pytest.param("mean", [2**60, 0, 0], id="mean"),
        pytest.param("std", [0, 1, 1], id="no deviation"),
        pytest.param("crop_fraction", 0, id="crop"),
        pytest.param("fill", [256, 0, 0], id="fill"),
    ],
)
def test_preprocessing_out_of_range_is_refused(bundle_path: Path, key: str, value: object) -> None:
    forge(bundle_path, at("preprocess", key, value=value))
    with pytest.raises(BundleError, match=key):
        load_bundle(bundle_path).preprocess()


def test_tower_without_blocks_is_sound(bundle_path: Path) -> None:
    def empty(tree: dict[str, Any]) -> None:
        tree["schedule"] |= {"merged": [], "tokens": []}
        tree["parity"]["onnx"]["match_agreement"] = []
        tree["tower"] = "text"

    forge(bundle_path, empty)
    assert load_bundle(bundle_path).manifest.schedule.tokens == ()
