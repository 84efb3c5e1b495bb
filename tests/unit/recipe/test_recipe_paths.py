"""Paths in a recipe: found from the recipe's folder, and never published in a bundle."""

from pathlib import Path

import pytest

from exporter.models import ModelRequest
from exporter.recipe import AccuracyGate, Recipe, Validation, load_recipe, portable, recipe_to_yaml


def loaded(folder: Path, text: str) -> Recipe:
    path = folder / "my.yaml"
    path.write_text(text, encoding="utf-8")
    return load_recipe(path)


def test_relative_paths_are_taken_from_the_recipes_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recipes").mkdir()
    monkeypatch.chdir(tmp_path)
    recipe = loaded(
        Path("recipes"), "model: nets/m.pt2\nweights: w.safetensors\nvalidate: {data: ../val, pairs: p.csv}"
    )
    assert recipe.model.model == str(tmp_path / "recipes/nets/m.pt2")
    assert recipe.model.weights == str(tmp_path / "recipes/w.safetensors")
    assert recipe.validate.data == str(tmp_path / "recipes/../val")
    assert recipe.validate.pairs == str(tmp_path / "recipes/p.csv")
    assert recipe.validate.classes is None


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        pytest.param("vit_b16", "vit_b16", id="alias"),
        pytest.param("timm:vit_base_patch16_224", "timm:vit_base_patch16_224", id="timm"),
        pytest.param("hf:google/vit-base", "hf:google/vit-base", id="hub-name"),
        pytest.param("hf:./ckpt", "hf:{folder}/ckpt", id="local-checkpoint"),
        pytest.param("hf:/data/ckpt", "hf:/data/ckpt", id="absolute-checkpoint"),
        pytest.param("hf:~nobody-of-this-name/c", "hf:{folder}/~nobody-of-this-name/c", id="no-such-home"),
    ],
)
def test_only_models_that_are_paths_are_resolved(tmp_path: Path, model: str, expected: str) -> None:
    recipe = loaded(tmp_path, f'model: "{model}"')
    assert recipe.model.model == expected.format(folder=tmp_path)
    assert recipe.model.weights == "pretrained"


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        pytest.param("/home/me/nets/m.pt2", "m.pt2", id="program"),
        pytest.param("hf:/home/me/ckpt", "hf:./ckpt", id="checkpoint"),
        pytest.param("hf:../ckpt/", "hf:./ckpt", id="relative-checkpoint"),
        pytest.param("hf:org/name", "hf:org/name", id="hub-name"),
        pytest.param("vit_b16", "vit_b16", id="alias"),
    ],
)
def test_a_portable_recipe_keeps_the_last_name_of_a_local_model(model: str, expected: str) -> None:
    assert portable(Recipe(model=ModelRequest(model=model))).model.model == expected


def test_a_portable_recipe_names_no_folder_and_keeps_its_gate() -> None:
    recipe = portable(
        Recipe(
            model=ModelRequest(model="vit_b16", weights="/home/me/w.safetensors"),
            validate=Validation(
                data="/home/me/val",
                unlabelled=True,
                classes="/home/me/names.txt",
                accuracy=AccuracyGate(max_drop=1.0),
            ),
        )
    )
    assert recipe.model.weights == "w.safetensors"
    assert recipe.validate == Validation(accuracy=AccuracyGate(max_drop=1.0))
    assert "/home" not in recipe_to_yaml(recipe)


@pytest.mark.parametrize("weights", ["/home/me/pretrained", "/home/me/random", "/home/me/w.safetensors"])
def test_a_portable_recipe_stays_what_it_is_when_it_moves_again(tmp_path: Path, weights: str) -> None:
    once = portable(Recipe(model=ModelRequest(model="hf:/x/ckpt", weights=weights)))
    moved = loaded(tmp_path, recipe_to_yaml(once))
    assert moved.model.weights == str(tmp_path / Path(weights).name)
    assert recipe_to_yaml(portable(moved)) == recipe_to_yaml(once)
