"""Options of engines, forms and calibration in a recipe: checked, kept, and free of this machine's folders."""

from pathlib import Path

import pytest

from exporter.cli.options import overrides
from exporter.errors import RecipeError, UsageError
from exporter.recipe import (
    Calibration,
    Recipe,
    load_recipe,
    override,
    portable,
    recipe_from_mapping,
    recipe_schema,
    recipe_to_yaml,
)
from exporter.targets import TARGETS, find_target
from exporter.targets.onnx.options import OnnxOptions


def recipe(**values: object) -> Recipe:
    return recipe_from_mapping({"schema_version": 1, "model": "vit_digits", **values}, "test")


def test_options_are_of_the_targets_own_type_with_its_defaults() -> None:
    found = recipe(engines={"onnx": {"provider": "cuda"}}).engines

    assert found == {"onnx": OnnxOptions(provider="cuda")}


def test_only_targets_that_were_given_options_have_any() -> None:
    assert recipe(targets=["onnx", "trt"]).engines == {}


@pytest.mark.parametrize(
    ("engines", "words"),
    [
        pytest.param({"onxx": {}}, ["engines.onxx", "unknown"], id="unknown target"),
        pytest.param({"onnx": {"providr": "cpu"}}, ["engines.onnx.providr", "unknown"], id="unknown option"),
        pytest.param({"onnx": {"provider": "tpu"}}, ["engines.onnx.provider", "cuda"], id="unknown value"),
        pytest.param({"trt": {"workspace_mb": "much"}}, ["engines.trt.workspace_mb"], id="wrong type"),
    ],
)
def test_what_a_target_does_not_know_is_refused_by_path(engines: object, words: list[str]) -> None:
    with pytest.raises(RecipeError) as refusal:
        recipe(engines=engines)

    assert all(word in str(refusal.value) for word in words), refusal.value


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_has_options_that_survive_a_recipe_file(name: str, tmp_path: Path) -> None:
    given = recipe(engines={name: {}})
    (tmp_path / "recipe.yaml").write_text(recipe_to_yaml(given), encoding="utf-8")

    assert load_recipe(tmp_path / "recipe.yaml") == given
    assert isinstance(given.engines[name], find_target(name).options)


def test_forms_that_were_asked_for_are_kept_and_others_left_to_the_target(tmp_path: Path) -> None:
    given = recipe(lowering={"mask": "folded", "attention": None})
    (tmp_path / "recipe.yaml").write_text(recipe_to_yaml(given), encoding="utf-8")

    assert given.lowering == {"mask": "folded"}
    assert load_recipe(tmp_path / "recipe.yaml").lowering == {"mask": "folded"}


def test_unknown_form_is_refused_with_the_known_ones() -> None:
    with pytest.raises(RecipeError, match=r"lowering\.mask.*expanded"):
        recipe(lowering={"mask": "painted"})


def test_calibration_images_are_found_beside_the_recipe_and_left_out_of_a_bundle(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(
        "schema_version: 1\nmodel: vit_digits\nprecision: int8\ncalibration: {data: photos, images: 7}\n",
        encoding="utf-8",
    )

    found = load_recipe(tmp_path / "recipe.yaml")

    assert found.calibration == Calibration(data=str(tmp_path / "photos"), images=7)
    assert portable(found).calibration == Calibration(images=7)


@pytest.mark.parametrize("tower", ["text", "both"])
def test_int8_wants_images_to_calibrate_on(tower: str) -> None:
    with pytest.raises(RecipeError, match="int8"):
        recipe(model="clip_digits", tower=tower, precision="int8")


def test_schema_describes_the_options_of_every_target() -> None:
    properties = recipe_schema()["$defs"]["EnginesDocument"]["properties"]

    assert set(properties) == set(TARGETS)


def test_options_of_the_command_line_become_recipe_keys() -> None:
    values = overrides(
        {
            "engine_option": (
                "onnx.provider=cuda",
                "trt.workspace_mb=4096",
                "trt.tf32=true",
                "trt.opt_batch=null",
            ),
            "lowering": ("mask=folded,selection=one-hot", "attention=op"),
            "calibration": "photos",
            "calibration_images": 9,
        }
    )

    assert values == {
        "engines.onnx.provider": "cuda",
        "engines.trt.workspace_mb": 4096,
        "engines.trt.tf32": True,
        "engines.trt.opt_batch": None,
        "lowering": {"mask": "folded", "selection": "one-hot", "attention": "op"},
        "calibration.data": "photos",
        "calibration.images": 9,
    }
    assert override(recipe(), values).engines["onnx"] == OnnxOptions(provider="cuda")


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({"engine_option": ("provider=cuda",)}, id="no target"),
        pytest.param({"engine_option": ("onnx.provider",)}, id="no value"),
        pytest.param({"lowering": ("folded",)}, id="no name"),
    ],
)
def test_option_without_a_name_or_a_value_is_refused(given: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="expected"):
        overrides(given)
