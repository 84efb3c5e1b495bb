"""`validate`: a fresh bundle passes, a damaged or wrong one does not."""

import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from exporter.bundle import load_bundle, write_sample
from tests.cli.commands import BUNDLE_FILES, MANIFEST_KEYS, refused, reseal, run


@pytest.fixture
def copy(vit_bundle: Path, tmp_path: Path) -> Path:
    """A bundle that a test may damage."""
    folder = tmp_path / "copy"
    shutil.copytree(vit_bundle, folder)
    return folder


def change_sample(bundle: Path, sample: dict[str, npt.NDArray[np.generic]]) -> None:
    """Another sample, with hashes that fit: damage that only running the engine can find."""
    write_sample(bundle, sample)
    reseal(bundle)


def test_bundle_without_images_has_parity_only(vit_bundle: Path) -> None:
    document = run("validate", vit_bundle, "--json").document

    assert document.keys() >= MANIFEST_KEYS
    assert "accuracy" not in document


def test_data_given_to_validate_needs_the_dense_model(vit_bundle: Path, labelled_folder: Path) -> None:
    complaint = refused(3, "validate", vit_bundle, "--data", labelled_folder)

    assert "tiny-vit" in complaint


def test_quiet_says_nothing_when_all_is_well(vit_bundle: Path) -> None:
    outcome = run("validate", vit_bundle, "--quiet")

    assert (outcome.status, outcome.out, outcome.err) == (0, "", "")


@pytest.mark.parametrize("name", BUNDLE_FILES)
def test_one_changed_byte_is_found(copy: Path, name: str) -> None:
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)

    assert name in refused(8, "validate", copy)


def test_files_that_do_not_belong_are_named_and_left_alone(copy: Path) -> None:
    (copy / "extra.bin").write_bytes(b"x")

    outcome = run("validate", copy, "--no-save")

    assert outcome.status == 0, outcome.err
    assert "not of this bundle, and neither checked nor read: extra.bin" in outcome.err
    assert (copy / "extra.bin").read_bytes() == b"x"


@pytest.mark.parametrize("name", ["nothing", "folder", "file"])
def test_what_is_no_bundle(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()

    assert "manifest.json" in refused(8, "validate", tmp_path / name)


def test_wrong_numbers_fail_the_parity_gate(copy: Path) -> None:
    sample = load_bundle(copy).sample()
    change_sample(copy, sample | {"logits": sample["logits"] + 1e-2})

    complaint = refused(5, "validate", copy)

    assert "max_abs_error" in complaint
    assert "onnx" in complaint


def test_sample_of_another_shape_is_a_damaged_bundle(copy: Path) -> None:
    sample = load_bundle(copy).sample()
    change_sample(copy, sample | {"logits": sample["logits"][:, :5]})

    assert "logits: expected float32 of shape" in refused(8, "validate", copy)


def test_sample_without_the_outputs_is_a_damaged_bundle(copy: Path) -> None:
    sample = load_bundle(copy).sample()
    change_sample(copy, {"images": sample["images"]})

    assert "logits" in refused(8, "validate", copy)


def test_engine_that_cannot_be_loaded_is_a_damaged_bundle(copy: Path) -> None:
    (copy / "model.onnx").write_bytes(b"no model")
    reseal(copy)

    assert "model.onnx" in refused(8, "validate", copy)
