"""A bundle does not hold its model: commands that need it find it where it was typed, or are told where it lies now."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cli.commands import manifest, refused, run
from tests.support.pretended_race import PretendedRace

RACE = ("--processes", "2", "--rounds", "1", "--no-compile", "--no-eager", "--no-save")


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A bundle of a local model: how the model was typed, where it lies, and which option names it."""

    typed: str
    place: str
    option: str
    prefix: str = ""


KINDS = {
    "folder": Kind(typed="hf:./my-vit", place="my-vit", option="--model", prefix="hf:"),
    "program": Kind(typed="models/x.pt2", place="models/x.pt2", option="--model"),
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, vit_dir: Path, saved_program: Path) -> Path:
    """A folder with local models and a bundle of each kind, built by relative paths, as people type them."""
    folder = tmp_path_factory.mktemp("place")
    shutil.copytree(vit_dir, folder / "my-vit")
    (folder / "models").mkdir()
    shutil.copy(saved_program, folder / "models/x.pt2")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, kind in KINDS.items():
            outcome = run(kind.typed, "--r", "4", "--out", f"b-{name}", "--quiet")
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


@pytest.mark.parametrize("name", list(KINDS))
def test_bundle_names_its_model_as_it_was_typed(built: Path, name: str) -> None:
    recipe = (built / f"b-{name}" / "recipe.yaml").read_text(encoding="utf-8")
    assert f"model: {KINDS[name].typed}\n" in recipe
    assert str(built) not in recipe


def commands(name: str, data: Path) -> dict[str, tuple[str | Path, ...]]:
    return {
        "validate": ("validate", f"b-{name}", "--data", data, "--unlabelled"),
        "bench": ("bench", f"b-{name}", *RACE),
        "report": ("report", f"b-{name}", "--image", next(data.glob("*/*.png"))),
        "run": ("run", f"b-{name}/recipe.yaml", "--out", "again"),
    }


MOVED = [
    pytest.param("folder", "validate", id="validate"),
    pytest.param("folder", "bench", id="bench"),
    pytest.param("folder", "report", id="report"),
    pytest.param("folder", "run", id="run"),
    pytest.param("program", "run", id="run of a program"),
]


@pytest.mark.parametrize(("name", "command"), MOVED)
def test_model_that_moved_is_asked_for_and_then_taken_where_it_is_said_to_lie(
    place: Path, tmp_path: Path, labelled_folder: Path, name: str, command: str
) -> None:
    kind = KINDS[name]
    elsewhere = tmp_path / "elsewhere" / Path(kind.place).name
    elsewhere.parent.mkdir()
    (place / kind.place).rename(elsewhere)
    words = commands(name, labelled_folder)[command]

    complaint = refused(3, *words)
    assert kind.option in complaint
    assert f'{kind.place}" in the current folder' in complaint

    outcome = run(*words, kind.option, f"{kind.prefix}{elsewhere}", "--quiet")
    assert outcome.status == 0, outcome.err
    if command == "run":
        assert (place / "again/model.onnx").read_bytes() == (place / f"b-{name}/model.onnx").read_bytes()


@pytest.mark.parametrize("command", ["validate", "bench", "report", "run"])
def test_another_model_is_refused_with_both_hashes(
    place: Path, labelled_folder: Path, weights_file: Path, command: str
) -> None:
    shutil.copytree(place / "my-vit", place / "other")
    spoil(place / "other", weights_file)

    complaint = refused(3, *commands("folder", labelled_folder)[command], "--model", "hf:./other")

    expected = manifest(place / "b-folder")["model"]["weights"]["sha256"]
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

    complaint = refused(3, *commands("folder", labelled_folder)[command])

    assert "it computes something else (cosine" in complaint
    assert "--model SOURCE" in complaint


def test_another_model_at_the_old_place_is_refused(
    place: Path, labelled_folder: Path, weights_file: Path
) -> None:
    spoil(place / "my-vit", weights_file)
    assert "expected the ones that the bundle" in refused(3, *commands("folder", labelled_folder)["validate"])


def test_model_beside_the_bundle_is_found_from_elsewhere(
    place: Path, labelled_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place.parent)
    words = [
        str(word).replace("b-folder", "place/b-folder")
        for word in commands("folder", labelled_folder)["validate"]
    ]
    outcome = run(*words, "--quiet")
    assert outcome.status == 0, outcome.err


def test_model_inside_of_the_bundle_is_not_read(place: Path, labelled_folder: Path) -> None:
    (place / "my-vit").rename(place / "b-folder" / "my-vit")
    complaint = refused(3, *commands("folder", labelled_folder)["validate"])
    assert "say where it lies now with --model hf:FOLDER" in complaint


def test_model_that_nothing_would_be_done_with_is_refused(place: Path) -> None:
    assert "--data" in refused(2, "validate", "b-folder", "--model", "hf:./my-vit")
    assert "--image" in refused(2, "report", "b-folder", "--model", "hf:./my-vit")


def test_preprocessing_is_the_bundles_wherever_the_model_lies(place: Path, labelled_folder: Path) -> None:
    """Another file beside the checkpoint does not change what a bundle's engines are measured on."""
    words = (*commands("folder", labelled_folder)["validate"], "--no-save", "--json")
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
