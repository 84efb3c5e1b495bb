"""A bundle does not hold its model: commands that need it find it where it was typed, or are told where it lies now."""

import json
import shutil
from pathlib import Path

import pytest

from tests.cli.commands import manifest, refused, run
from tests.support.pretended_race import PretendedRace

RACE = ("--processes", "2", "--rounds", "1", "--no-compile", "--no-eager", "--no-save")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, vit_dir: Path) -> Path:
    """A folder with a local model and its bundle, built by a relative path, as people type it."""
    folder = tmp_path_factory.mktemp("place")
    shutil.copytree(vit_dir, folder / "my-vit")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        outcome = run("hf:./my-vit", "--r", "4", "--out", "bundle", "--quiet")
    assert outcome.status == 0, outcome.err
    return folder


@pytest.fixture
def place(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it as the working directory, with races that pretend."""
    folder = tmp_path / "place"
    shutil.copytree(built, folder)
    monkeypatch.chdir(folder)
    PretendedRace(tmp_path, monkeypatch)
    return folder


def spoil(folder: Path, weights_file: Path) -> None:
    """Give the checkpoint in a folder other weights of the same shapes."""
    shutil.copy(weights_file, folder / "model.safetensors")


def test_bundle_names_its_model_as_it_was_typed(built: Path) -> None:
    recipe = (built / "bundle" / "recipe.yaml").read_text(encoding="utf-8")
    assert "model: hf:./my-vit\n" in recipe
    assert str(built) not in recipe


def command_words(command: str, data: Path) -> tuple[str | Path, ...]:
    """A command that needs the model of the bundle."""
    words: dict[str, tuple[str | Path, ...]] = {
        "validate": ("bundle", "--data", data, "--unlabelled"),
        "bench": ("bundle", *RACE),
        "report": ("bundle", "--image", next(data.glob("*/*.png"))),
        "run": ("bundle/recipe.yaml", "--out", "again"),
    }
    return (command, *words[command])


@pytest.mark.parametrize("command", ["validate", "bench", "report", "run"])
def test_model_that_moved_is_asked_for_and_then_taken_where_it_is_said_to_lie(
    place: Path, labelled_folder: Path, command: str
) -> None:
    elsewhere = place.parent / "my-vit"
    (place / "my-vit").rename(elsewhere)
    words = command_words(command, labelled_folder)

    complaint = refused(3, *words)
    assert "--model" in complaint
    assert 'my-vit" in the current folder' in complaint

    outcome = run(*words, "--model", f"hf:{elsewhere}", "--quiet")
    assert outcome.status == 0, outcome.err
    if command == "run":
        assert (place / "again/model.onnx").read_bytes() == (place / "bundle/model.onnx").read_bytes()


@pytest.mark.parametrize("command", ["validate", "bench", "report", "run"])
def test_another_model_is_refused_with_both_hashes(
    place: Path, labelled_folder: Path, weights_file: Path, command: str
) -> None:
    shutil.copytree(place / "my-vit", place / "other")
    spoil(place / "other", weights_file)

    complaint = refused(3, *command_words(command, labelled_folder), "--model", "hf:./other")

    expected = manifest(place / "bundle")["model"]["weights"]["sha256"]
    assert f"(sha256 {expected[:12]}...), got" in complaint


@pytest.mark.parametrize("command", ["validate", "report"])
def test_equal_weights_with_other_settings_are_another_model(
    place: Path, labelled_folder: Path, command: str
) -> None:
    settings = place / "my-vit" / "config.json"
    changed = json.loads(settings.read_text(encoding="utf-8")) | {
        "num_attention_heads": 2,
        "hidden_act": "relu",
    }
    settings.write_text(json.dumps(changed), encoding="utf-8")

    complaint = refused(3, *command_words(command, labelled_folder))

    assert "it computes something else (cosine" in complaint
    assert "--model SOURCE" in complaint


def test_another_model_at_the_old_place_is_refused(
    place: Path, labelled_folder: Path, weights_file: Path
) -> None:
    spoil(place / "my-vit", weights_file)
    assert "expected the ones that the bundle" in refused(3, *command_words("validate", labelled_folder))


def test_model_beside_the_bundle_is_found_from_elsewhere(
    place: Path, labelled_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place.parent)
    words = [
        "place/bundle" if word == "bundle" else word for word in command_words("validate", labelled_folder)
    ]
    outcome = run(*words, "--quiet")
    assert outcome.status == 0, outcome.err


def test_model_inside_of_the_bundle_is_not_read(place: Path, labelled_folder: Path) -> None:
    (place / "my-vit").rename(place / "bundle" / "my-vit")
    complaint = refused(3, *command_words("validate", labelled_folder))
    assert "say where it lies now with --model hf:FOLDER" in complaint


def test_model_that_nothing_would_be_done_with_is_refused(place: Path) -> None:
    assert "--data" in refused(2, "validate", "bundle", "--model", "hf:./my-vit")
    assert "--image" in refused(2, "report", "bundle", "--model", "hf:./my-vit")


def test_preprocessing_is_the_bundles_wherever_the_model_lies(place: Path, labelled_folder: Path) -> None:
    """Another file beside the checkpoint does not change what a bundle's engines are measured on."""
    words = (*command_words("validate", labelled_folder), "--no-save", "--json")
    before = run(*words).document["fidelity"]
    config = {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": 24, "width": 24},
        "image_mean": [0.1, 0.2, 0.3],
        "image_std": [0.9, 0.8, 0.7],
    }
    (place / "my-vit/preprocessor_config.json").write_text(json.dumps(config), encoding="utf-8")
    assert run(*words).document["fidelity"] == before


@pytest.fixture
def swept(place: Path) -> tuple[str, ...]:
    words = ("sweep", "hf:./my-vit", "--r", "0", "--out", "grid", "--processes", "2", "--rounds", "1")
    outcome = run(*words, "--quiet")
    assert outcome.status == 0, outcome.err
    return words


def test_sweep_of_a_model_that_moved_keeps_its_points(
    place: Path, swept: tuple[str, ...], weights_file: Path
) -> None:
    before = json.loads((place / "grid/sweep.json").read_text(encoding="utf-8"))
    (place / "my-vit").rename(place / "moved")

    assert "there is no folder" in refused(3, *swept)
    outcome = run(*swept, "--model", "hf:./moved")

    assert outcome.status == 0, outcome.err
    assert "1 points, 1 of them known already" in " ".join(outcome.err.split())
    assert json.loads((place / "grid/sweep.json").read_text(encoding="utf-8")) == before
    spoil(place / "moved", weights_file)
    assert f"(sha256 {before['weights_sha256'][:12]}...)" in refused(3, *swept, "--model", "hf:./moved")
