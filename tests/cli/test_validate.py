"""`validate`: a fresh bundle passes, a damaged or wrong one does not."""

import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from exporter.bundle import load_bundle, seal, write_sample
from tests.cli.commands import BUNDLE_FILES, MANIFEST_KEYS, TINY, Build, refused, run


@pytest.fixture
def copy(vit_bundle: Path, tmp_path: Path) -> Path:
    """A bundle that a test may damage."""
    folder = tmp_path / "copy"
    shutil.copytree(vit_bundle, folder)
    return folder


def reseal(bundle: Path, sample: dict[str, npt.NDArray[np.generic]]) -> None:
    """Another sample, with hashes that fit: damage that only running the engine can find."""
    manifest = load_bundle(bundle).manifest
    (bundle / "manifest.json").unlink()
    write_sample(bundle, sample)
    seal(bundle, manifest)


def test_fresh_bundle_passes(digits_bundle: Path) -> None:
    outcome = run("validate", digits_bundle)

    assert outcome.status == 0, outcome.err
    for fact in ("parity onnx", "max error", "accuracy dense", "accuracy onnx", "unchanged"):
        assert fact in outcome.out


def test_json_adds_accuracy_to_the_manifest(build: Build, labelled_folder: Path) -> None:
    bundle = build(*TINY, "--r", "2")

    outcome = run("validate", bundle, "--data", labelled_folder, "--json")

    assert outcome.status == 0, outcome.err
    assert outcome.err == ""
    document = outcome.document
    assert document.keys() >= MANIFEST_KEYS | {"accuracy", "difference"}
    assert document["accuracy"].keys() == {"dense", "onnx"}
    assert document["accuracy"]["dense"].keys() == {"top1", "top5", "n"}
    assert document["accuracy"]["dense"]["n"] == 6
    assert document["difference"]["onnx"].keys() >= {"top1", "interval"}
    exact = document["accuracy"]["onnx"]["top1"] - document["accuracy"]["dense"]["top1"]
    assert document["difference"]["onnx"]["top1"] == pytest.approx(exact)
    assert document["parity"]["onnx"]["passed"] is True
    assert document["parity"]["onnx"]["max_abs_error"] < 1e-4


def test_bundle_without_images_has_parity_only(vit_bundle: Path) -> None:
    document = run("validate", vit_bundle, "--json").document

    assert document.keys() >= MANIFEST_KEYS
    assert "accuracy" not in document


def test_data_measures_accuracy(build: Build, vit_dir: Path, labelled_folder: Path) -> None:
    bundle = build(f"hf:{vit_dir}", "--r", "4", "--data", labelled_folder)

    recipe = (bundle / "recipe.yaml").read_text(encoding="utf-8")
    assert str(labelled_folder) not in recipe
    assert "data: null" in recipe


def test_data_given_to_validate_needs_the_dense_model(vit_bundle: Path, labelled_folder: Path) -> None:
    complaint = refused(3, "validate", vit_bundle, "--data", labelled_folder)

    assert "tiny-vit" in complaint


def test_quiet_says_nothing_when_all_is_well(vit_bundle: Path) -> None:
    outcome = run("validate", vit_bundle, "--quiet")

    assert (outcome.status, outcome.out, outcome.err) == (0, "", "")


@pytest.mark.parametrize("name", BUNDLE_FILES)
@pytest.mark.parametrize("place", [0.0, 0.5, 0.999])
def test_one_changed_byte_is_found(copy: Path, name: str, place: float) -> None:
    data = bytearray((copy / name).read_bytes())
    data[int(place * len(data))] ^= 1
    (copy / name).write_bytes(data)

    assert name in refused(8, "validate", copy)


@pytest.mark.parametrize("name", BUNDLE_FILES)
def test_missing_files_are_found(copy: Path, name: str) -> None:
    (copy / name).unlink()

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
    reseal(copy, sample | {"logits": sample["logits"] + 1e-2})

    complaint = refused(5, "validate", copy)

    assert "max_abs_error" in complaint
    assert "onnx" in complaint


def test_sample_of_another_shape_is_a_damaged_bundle(copy: Path) -> None:
    sample = load_bundle(copy).sample()
    reseal(copy, sample | {"logits": sample["logits"][:, :5]})

    assert "logits: expected float32 of shape" in refused(8, "validate", copy)


def test_sample_without_the_outputs_is_a_damaged_bundle(copy: Path) -> None:
    sample = load_bundle(copy).sample()
    reseal(copy, {"images": sample["images"]})

    assert "logits" in refused(8, "validate", copy)


def test_engine_that_cannot_be_loaded_is_a_damaged_bundle(copy: Path) -> None:
    (copy / "model.onnx").write_bytes(b"no model")
    sample = load_bundle_unchecked(copy)
    reseal_after_damage(copy, sample)

    assert "model.onnx" in refused(8, "validate", copy)


def load_bundle_unchecked(bundle: Path) -> dict[str, npt.NDArray[np.generic]]:
    with np.load(bundle / "sample.npz") as archive:
        return {name: archive[name] for name in archive.files}


def reseal_after_damage(bundle: Path, sample: dict[str, npt.NDArray[np.generic]]) -> None:
    from exporter.bundle.manifest import decode

    manifest = decode((bundle / "manifest.json").read_bytes(), "manifest.json")
    (bundle / "manifest.json").unlink()
    write_sample(bundle, sample)
    seal(bundle, manifest)
