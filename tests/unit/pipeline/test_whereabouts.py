"""A bundle's local model and weights file: looked for as typed, from here and beside the bundle, and nowhere else."""

from pathlib import Path

import pytest

from exporter.errors import ModelUnavailableError
from exporter.models import ModelRequest
from exporter.pipeline.whereabouts import located
from exporter.recipe import Recipe


@pytest.fixture
def around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory is `tmp/here`, the bundle `tmp/here/out/b`."""
    (tmp_path / "here/out/b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def found(model: str, weights: str = "pretrained", given: tuple[str, ...] = ()) -> tuple[str, str]:
    recipe = Recipe(model=ModelRequest(model=model, weights=weights, preprocess="p.json"))
    request = located(recipe, Path("out/b"), given).model
    assert request.preprocess == "out/b/preprocess.json"
    return request.model, request.weights


@pytest.mark.parametrize(
    ("model", "places", "expected"),
    [
        pytest.param("hf:./m", ["m"], "hf:./m", id="checkpoint here"),
        pytest.param("hf:./m", ["m", "out/m"], "hf:./m", id="here comes first"),
        pytest.param("hf:./m", ["out/m"], "hf:./out/m", id="checkpoint beside the bundle"),
        pytest.param("nets/m.pt2", ["out/nets/m.pt2"], "out/nets/m.pt2", id="program beside the bundle"),
        pytest.param("timm:local-dir:m", ["out/m"], "timm:local-dir:out/m", id="timm folder"),
        pytest.param("open_clip:local-dir:m", ["m"], "open_clip:local-dir:m", id="open_clip folder"),
        pytest.param("hf:org/name", [], "hf:org/name", id="hub name"),
        pytest.param("vit_b16", ["vit_b16"], "vit_b16", id="alias"),
    ],
)
def test_first_place_that_exists_is_taken(around: Path, model: str, places: list[str], expected: str) -> None:
    for place in places:
        (around / place).mkdir(parents=True)
    assert found(model)[0] == expected


def test_weights_file_is_looked_for_by_the_same_rule(around: Path) -> None:
    (around / "out/w.safetensors").touch()
    assert found("vit_b16", "w.safetensors")[1] == "out/w.safetensors"


@pytest.mark.parametrize(
    ("model", "weights", "how"),
    [
        pytest.param("hf:./m", "pretrained", "--model hf:FOLDER", id="checkpoint"),
        pytest.param("m.pt2", "pretrained", "--model FILE.pt2", id="program"),
        pytest.param("timm:local-dir:m", "pretrained", "--model timm:local-dir:FOLDER", id="timm folder"),
        pytest.param("vit_b16", "w.safetensors", "--weights FILE", id="weights file"),
    ],
)
def test_what_is_nowhere_is_asked_for(around: Path, model: str, weights: str, how: str) -> None:
    for inside in ("m", "m.pt2", "w.safetensors"):
        (around / "out/b" / inside).touch()
    with pytest.raises(ModelUnavailableError) as caught:
        found(model, weights)
    message = str(caught.value)
    assert message.startswith("out/b: its ")
    assert ' in the current folder and in "out", where the bundle lies; ' in message
    assert message.endswith(f"say where it lies now with {how}")
    assert str(around) not in message


def test_what_the_user_names_is_taken_as_it_is(around: Path) -> None:
    named = found("hf:/elsewhere/m", "/elsewhere/w", given=("model.name", "weights"))
    assert named == ("hf:/elsewhere/m", "/elsewhere/w")


def test_part_of_a_bundle_is_looked_for_beside_the_whole(around: Path) -> None:
    (around / "out/b/manifest.json").touch()
    (around / "out/b/text").mkdir()
    (around / "out/m").mkdir()
    recipe = Recipe(model=ModelRequest(model="hf:./m"))
    assert located(recipe, Path("out/b/text")).model.model == "hf:./out/m"


def test_long_names_are_cut(around: Path) -> None:
    with pytest.raises(ModelUnavailableError) as caught:
        found(f"hf:./{'x' * 5000}")
    assert len(str(caught.value)) < 600
