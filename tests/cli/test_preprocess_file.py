"""`--preprocess`: a program that does not say how photos become its input, and the bundle that is made of it."""

import json
import shutil
from pathlib import Path

import pytest

from exporter.models.preprocessing.file import GIVEN
from exporter.models.pt2.source import SAYS_NOTHING
from tests.cli.commands import manifest, refused, run, tree

SAID = {"image_size": 24, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2], "interpolation": "bilinear"}


@pytest.fixture(scope="module")
def told(saved_program: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the program, with a preprocessing file from elsewhere."""
    folder = tmp_path_factory.mktemp("told")
    (folder / "how I see.json").write_text(json.dumps(SAID), encoding="utf-8")
    options = ("--r", "0", "--preprocess", folder / "how I see.json", "--out", folder / "b", "--quiet")
    outcome = run(saved_program, *options)
    assert outcome.status == 0, outcome.err
    return folder / "b"


def test_a_bundle_says_what_it_was_given_and_names_no_file_of_this_machine(told: Path) -> None:
    said = json.loads((told / "preprocess.json").read_text(encoding="utf-8"))
    recipe = (told / "recipe.yaml").read_text(encoding="utf-8")
    assert {key: said[key] for key in SAID} == SAID | {"image_size": [24, 24]}
    assert manifest(told)["preprocess"] == said
    assert GIVEN in manifest(told)["notes"]
    assert "preprocess: preprocess.json" in recipe
    assert "how I see" not in recipe + json.dumps(manifest(told))


def test_its_recipe_rebuilds_the_same(told: Path, saved_program: Path, tmp_path: Path) -> None:
    shutil.copytree(told, tmp_path / "copy")
    shutil.copy(saved_program, tmp_path / saved_program.name)
    outcome = run("run", tmp_path / "copy" / "recipe.yaml", "--out", tmp_path / "again" / "b", "--quiet")
    assert outcome.status == 0, outcome.err
    assert tree(tmp_path / "again" / "b") == tree(told)


def test_without_it_a_program_takes_no_photos_and_says_so(
    saved_program: Path, labelled_folder: Path, tmp_path: Path
) -> None:
    planned = run("inspect", saved_program, "--r", "4")
    assert SAYS_NOTHING in planned.out + planned.err
    assert "export it with --preprocess FILE.json" in refused(
        2, saved_program, "--r", "4", "--data", labelled_folder, "--out", tmp_path / "b"
    )
