"""The manifest has the contract's keys, one spelling, and notices every change."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporter.bundle import Manifest
from exporter.bundle.file_names import is_file_name
from exporter.bundle.manifest import decode, encode, sealed
from exporter.errors import BundleError, InternalError

FILES = {"model.onnx": "11" * 32, "openvino/model.xml": "22" * 32}


def test_the_keys_are_the_contracts(bundle_path: Path) -> None:
    tree = json.loads((bundle_path / "manifest.json").read_bytes())
    contract = {"schema_version", "name", "model", "method", "schedule", "gmacs"}
    contract |= {"inputs", "outputs", "preprocess", "artifacts", "parity", "toolchain"}
    beyond = {"tower", "tokens_protected", "input", "layout", "passes", "notes", "files", "digest"}
    assert set(tree) == contract | beyond
    assert set(tree["model"]) == {"source", "id", "weights"}
    assert set(tree["model"]["weights"]) == {"kind", "sha256"}
    assert set(tree["schedule"]) == {"requested", "merged", "tokens"}
    assert set(tree["gmacs"]) == {"dense", "reduced", "ratio", "executed"}
    assert tree["inputs"] == [{"name": "images", "dtype": "float32", "shape": ["batch", 3, 8, 8]}]
    assert set(tree["artifacts"]["onnx"]) == {"file", "sha256", "precision", "opset"}
    assert set(tree["artifacts"]["openvino"]) == {"file", "sha256", "precision"}
    errors = {"max_abs_error", "mean_abs_error", "cosine"}
    assert set(tree["parity"]["onnx"]) == errors | {"match_agreement", "passed"}


def test_files_lists_every_other_file(bundle_path: Path) -> None:
    tree = json.loads((bundle_path / "manifest.json").read_bytes())
    on_disk = {path.relative_to(bundle_path).as_posix() for path in bundle_path.rglob("*") if path.is_file()}
    assert set(tree["files"]) == on_disk - {"manifest.json"}
    assert tree["artifacts"]["onnx"]["sha256"] == tree["files"]["model.onnx"]


def test_a_manifest_comes_back_equal(manifest: Manifest) -> None:
    written = sealed(manifest, FILES)
    assert decode(encode(written), "here") == written


def test_the_same_bundle_twice_has_the_same_bytes(
    tmp_path: Path, write_bundle: Callable[[Path], Path]
) -> None:
    first, second = write_bundle(tmp_path / "a"), write_bundle(tmp_path / "b")
    for name in ("manifest.json", "sample.npz"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    assert str(tmp_path).encode() not in (first / "manifest.json").read_bytes()


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), flipped=st.integers(1, 255))
def test_any_changed_byte_of_a_manifest_is_found(manifest: Manifest, place: float, flipped: int) -> None:
    data = bytearray(encode(sealed(manifest, FILES)))
    data[int(place * len(data))] ^= flipped
    with pytest.raises(BundleError):
        decode(bytes(data), "here")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"", "not sound JSON", id="empty"),
        pytest.param(b"{", "not sound JSON", id="broken"),
        pytest.param(b"\xff\xfe", "not sound JSON", id="not-utf-8"),
        pytest.param(
            b'{"schema_version": NaN}', "schema_version: expected a number within 64 bits, got nan", id="nan"
        ),
        pytest.param(b"[" * 100_000, "not sound JSON", id="deep"),
        pytest.param(b"[]", "got a JSON list", id="list"),
        pytest.param(b'{"version": 3}', "schema_version, got none", id="another-programs"),
        pytest.param(b'{"schema_version": 2}', "version 1 or older, got 2; upgrade the exporter", id="newer"),
        pytest.param(b'{"schema_version": 1}', "expected digest none", id="no-digest"),
    ],
)
def test_what_is_no_manifest_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(BundleError) as caught:
        decode(data, "here")
    assert str(caught.value).startswith("here: ")
    assert message in str(caught.value)


def test_added_white_space_is_found(manifest: Manifest) -> None:
    with pytest.raises(BundleError, match="spelling"):
        decode(encode(sealed(manifest, FILES)) + b"\n", "here")


@pytest.mark.parametrize(
    "name",
    [
        *("../x", "/etc/passwd", "a/../../x", "a\\..\\x", "C:x", ""),
        *(".", "a//b", "./a", "a/", "a\0", "manifest.json"),
    ],
)
def test_a_name_that_leaves_the_bundle_is_none(manifest: Manifest, name: str) -> None:
    assert not is_file_name(name)
    with pytest.raises(InternalError):
        sealed(manifest, {**FILES, name: "33" * 32})


@pytest.mark.parametrize("name", ["model.onnx", "openvino/model.bin", "..a", "model.onnx.data"])
def test_a_plain_relative_name_is_one(name: str) -> None:
    assert is_file_name(name)


def test_an_artifact_without_a_file_is_a_broken_invariant(manifest: Manifest) -> None:
    with pytest.raises(InternalError, match=r"model\.onnx"):
        sealed(manifest, {})
