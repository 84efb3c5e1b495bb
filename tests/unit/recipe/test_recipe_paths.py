"""Paths in a recipe: found from the recipe's folder, and never published in a bundle."""

from dataclasses import fields
from pathlib import Path

import pytest

from exporter.local_path import local_fields
from exporter.models import ModelRequest
from exporter.recipe import AccuracyGate, Recipe, Validation, load_recipe, portable, recipe_to_yaml
from exporter.targets import TARGETS, find_target


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
    assert recipe.model.model == "recipes/nets/m.pt2"
    assert recipe.model.weights == "recipes/w.safetensors"
    assert recipe.validate.data == "recipes/../val"
    assert recipe.validate.pairs == "recipes/p.csv"
    assert recipe.validate.classes is None
    assert loaded(tmp_path, "model: m.pt2").model.model == str(tmp_path / "m.pt2")


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
        pytest.param("hf:~/nets/ckpt", "hf:./ckpt", id="checkpoint-of-home"),
        pytest.param("hf:a/../../ckpt", "hf:a/../../ckpt", id="reads-as-a-name"),
        pytest.param("hf:./a/../../ckpt", "hf:./ckpt", id="leaves-on-the-way"),
        pytest.param("timm:local-dir:/home/me/tuned", "timm:local-dir:tuned", id="timm-folder"),
        pytest.param("open_clip:local-dir:../clip", "open_clip:local-dir:clip", id="open-clip-folder"),
    ],
)
def test_a_portable_recipe_keeps_the_last_name_of_a_model_that_lies_elsewhere(
    model: str, expected: str
) -> None:
    assert portable(Recipe(model=ModelRequest(model=model))).model.model == expected


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        pytest.param("models/x.pt2", "models/x.pt2", id="program"),
        pytest.param("./x.pt2", "x.pt2", id="program-here"),
        pytest.param("hf:./my-clip", "hf:./my-clip", id="checkpoint"),
        pytest.param("hf:./nets/../my-clip/", "hf:./my-clip", id="checkpoint-with-a-detour"),
        pytest.param("hf:here", "hf:./here", id="folder-that-reads-as-a-name"),
        pytest.param("hf:org/here", "hf:./org/here", id="folder-that-reads-as-a-hub-name"),
        pytest.param("timm:local-dir:nets/tuned", "timm:local-dir:nets/tuned", id="timm-folder"),
        pytest.param("open_clip:local-dir:clip", "open_clip:local-dir:clip", id="open-clip-folder"),
        pytest.param("hf:org/name", "hf:org/name", id="hub-name"),
        pytest.param("timm:vit_base_patch16_224", "timm:vit_base_patch16_224", id="timm"),
        pytest.param("vit_b16", "vit_b16", id="alias"),
    ],
)
def test_a_portable_recipe_keeps_names_and_paths_that_lead_downwards(
    tmp_path: Path, model: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    (tmp_path / "org/here").mkdir(parents=True)
    once = portable(Recipe(model=ModelRequest(model=model, weights="nets/w.safetensors")))
    assert (once.model.model, once.model.weights) == (expected, "nets/w.safetensors")
    assert portable(once) == once


@pytest.mark.parametrize("weights", ["./random", "nets/../pretrained", "/home/me/random"])
def test_a_weights_file_that_is_called_like_a_word_stays_a_path(
    tmp_path: Path, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = f"./{Path(weights).name}"
    assert portable(Recipe(model=ModelRequest(model="vit_b16", weights=weights))).model.weights == name
    assert loaded(Path("."), f"model: vit_b16\nweights: {name}").model.weights == name


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


@pytest.mark.parametrize(
    ("target", "option"),
    [
        pytest.param("onnx", "engine_cache", id="onnx"),
        pytest.param("trt", "timing_cache", id="trt"),
        pytest.param("torch-trt", "timing_cache", id="torch-trt"),
    ],
)
def test_files_of_engines_are_found_beside_the_recipe_and_left_out_of_a_bundle(
    tmp_path: Path, target: str, option: str
) -> None:
    recipe = loaded(tmp_path, f"model: vit_b16\nengines: {{{target}: {{{option}: cache/kernels}}}}")
    assert getattr(recipe.engines[target], option) == str(tmp_path / "cache/kernels")
    assert getattr(portable(recipe).engines[target], option) is None
    assert str(tmp_path) not in recipe_to_yaml(portable(recipe))


def test_whatever_an_engine_calls_a_file_or_folder_is_declared_as_a_path() -> None:
    for target in TARGETS:
        options = find_target(target).options
        named = {
            field.name for field in fields(options) if field.name.endswith(("cache", "path", "file", "dir"))
        }
        assert named <= set(local_fields(options))
