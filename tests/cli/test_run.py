"""`run`: recipes, among them those that lie in bundles."""

import shutil
from pathlib import Path

import pytest

from tests.cli.commands import TINY, Build, manifest, refused, run, tree


def test_recipe_of_a_bundle_rebuilds_the_same_bytes(build: Build, tmp_path: Path) -> None:
    bundle = build(*TINY, "--r", "2")
    again = tmp_path / bundle.name

    outcome = run("run", bundle / "recipe.yaml", "--out", again, "--quiet")

    assert outcome.status == 0, outcome.err
    assert tree(again) == tree(bundle)


@pytest.fixture(scope="module")
def file_bundle(vit_dir: Path, weights_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a recipe with other options, which override it, and with the weights of a file."""
    tmp_path = tmp_path_factory.mktemp("weights-of-a-file")
    folder = tmp_path / "from-file"
    (tmp_path / "recipe.yaml").write_text(
        f"model: hf:{vit_dir}\nschedule: {{r: 4}}\nbatch: 2\n", encoding="utf-8"
    )
    words = ("--r-per-layer", "3,2,1,0", "--weights", weights_file, "--out", folder, "--quiet")
    outcome = run("run", tmp_path / "recipe.yaml", *words)
    assert outcome.status == 0, outcome.err
    return folder


def test_options_override_the_recipe(file_bundle: Path) -> None:
    assert manifest(file_bundle)["schedule"]["merged"] == [3, 2, 1, 0]
    assert manifest(file_bundle)["inputs"][0]["shape"][0] == 2
    assert "r_per_layer: [3, 2, 1, 0]" in (file_bundle / "recipe.yaml").read_text(encoding="utf-8")


def test_recipe_of_a_bundle_takes_no_other_weights(
    file_bundle: Path, vit_dir: Path, weights_file: Path, tmp_path: Path
) -> None:
    assert manifest(file_bundle)["model"]["weights"]["kind"] == "file"
    copied, beside = tmp_path / "there/copied", tmp_path / "there"
    shutil.copytree(file_bundle, copied)
    shutil.copytree(vit_dir, beside / vit_dir.name)

    complaint = refused(3, "run", copied / "recipe.yaml", "--out", tmp_path / "again")
    assert f"weights file {weights_file.name} is not here" in complaint
    assert "say where it lies now with --weights FILE" in complaint
    shutil.copy(vit_dir / "model.safetensors", beside / weights_file.name)
    before = tree(tmp_path)

    complaint = refused(3, "run", copied / "recipe.yaml", "--out", tmp_path / "again")

    assert "expected the ones that the bundle was built from" in complaint
    assert tree(tmp_path) == before
    shutil.copy(weights_file, beside / weights_file.name)
    assert run("run", copied / "recipe.yaml", "--out", tmp_path / "again", "--quiet").status == 0
    assert (tmp_path / "again/model.onnx").read_bytes() == (file_bundle / "model.onnx").read_bytes()


def test_recipe_beside_a_damaged_manifest_is_refused(
    vit_bundle: Path, tmp_path: Path, workplace: Path
) -> None:
    shutil.copytree(vit_bundle, tmp_path / "bundle")
    text = (vit_bundle / "manifest.json").read_text(encoding="utf-8")
    (tmp_path / "bundle/manifest.json").write_text(text.replace('"tome"', '"tame"'), encoding="utf-8")

    assert "changed" in refused(8, "run", tmp_path / "bundle" / "recipe.yaml")


def test_text_tower_recipe_round_trips(build: Build, clip_dir: Path, tmp_path: Path) -> None:
    bundle = build(f"hf:{clip_dir}", "--tower", "text")
    shutil.copy(bundle / "recipe.yaml", tmp_path / "text.yaml")
    shutil.copytree(clip_dir, tmp_path / clip_dir.name)

    assert run("run", tmp_path / "text.yaml", "--out", tmp_path / "again", "--quiet").status == 0

    assert (tmp_path / "again/model.onnx").read_bytes() == (bundle / "model.onnx").read_bytes()
