"""The recipes in `recipes/`, and the JSON Schema that editors check recipes with."""

from pathlib import Path
from typing import Any

import jsonschema
import pytest

from exporter.models import ModelRequest, aliases
from exporter.recipe import Recipe, load_recipe, recipe_schema, recipe_to_mapping
from exporter.recipe.yaml_text import parse_yaml
from exporter.reduction import method
from exporter.schedule import PUBLISHED, Geometry, ScheduleRequest, plan

ROOT = Path(__file__).parents[3]
SHIPPED = sorted((ROOT / "recipes").rglob("*.yaml"))

MAE = {
    "timm:vit_base_patch16_224.mae": ("mae_b16", Geometry(tokens=197, protected=1, blocks=12)),
    "timm:vit_large_patch16_224.mae": ("mae_l16", Geometry(tokens=197, protected=1, blocks=24)),
    "timm:vit_huge_patch14_224.mae": ("mae_h14", Geometry(tokens=257, protected=1, blocks=32)),
}
"""Models without an alias: their weights are fine-tuned ones, which the user has."""

each_recipe = pytest.mark.parametrize("path", [pytest.param(path, id=path.stem) for path in SHIPPED])


@each_recipe
def test_a_shipped_recipe_loads_names_its_model_and_says_what_it_builds(path: Path) -> None:
    recipe = load_recipe(path)
    name = recipe.model.model
    assert name in aliases() or Path(recipe.model.weights).name.startswith("mae_finetuned_vit_")
    assert path.stem.startswith(MAE[name][0] if name in MAE else name)
    ends = [*recipe.targets, *(f"{target}_{recipe.precision}" for target in recipe.targets), "engines"]
    assert any(path.stem.endswith(end) for end in ends)


@each_recipe
def test_a_shipped_schedule_fits_its_model_without_a_cap(path: Path) -> None:
    recipe = load_recipe(path)
    if recipe.model.model in MAE:
        geometry = MAE[recipe.model.model][1]
    else:
        alias = aliases()[recipe.model.model]
        geometry = Geometry(tokens=alias.tokens, protected=1, blocks=alias.blocks)
    schedule = plan(recipe.schedule, method(recipe.method).limited(geometry, recipe.method_options))
    assert schedule.notes == ()
    assert not schedule.is_dense


def test_every_alias_has_a_recipe() -> None:
    assert {load_recipe(path).model.model for path in SHIPPED} == {*aliases(), *MAE}


def test_every_published_schedule_has_a_recipe_that_names_its_source() -> None:
    published = [path for path in SHIPPED if load_recipe(path).schedule.published is not None]
    assert {load_recipe(path).schedule.published for path in published} == set(PUBLISHED)
    assert len(published) == len(PUBLISHED)
    assert all("github.com/OpenGVLab/DiffRate" in path.read_text(encoding="utf-8") for path in published)


@each_recipe
def test_the_schema_accepts_a_shipped_recipe(path: Path) -> None:
    jsonschema.validate(parse_yaml(path.read_text(encoding="utf-8"), str(path)), recipe_schema())


@pytest.mark.parametrize(
    "schedule",
    [
        pytest.param(ScheduleRequest(r=8, kind="decreasing", align=8), id="r"),
        pytest.param(ScheduleRequest(r_per_layer=(1, 2)), id="r-per-layer"),
        pytest.param(ScheduleRequest(keep_per_layer=(0.5, 0.5)), id="keep-fractions"),
        pytest.param(ScheduleRequest(keep_per_layer=(100, 50)), id="keep-counts"),
    ],
)
def test_the_schema_accepts_every_key_written_out(schedule: ScheduleRequest) -> None:
    recipe = Recipe(model=ModelRequest(model="vit_b16"), schedule=schedule)
    jsonschema.validate(recipe_to_mapping(recipe), recipe_schema())


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"modle": "x"}, id="unknown-key"),
        pytest.param({"schedule": {"r": -1}}, id="negative"),
        pytest.param({"schedule": {"kind": "constant"}}, id="no-form"),
        pytest.param({"schedule": {"r": 1, "r_per_layer": [1]}}, id="two-forms"),
        pytest.param({"schedule": {"keep_per_layer": [0]}}, id="keep-nothing"),
        pytest.param({"targets": ["onx"]}, id="target"),
        pytest.param({"schema_version": 2}, id="newer"),
    ],
)
def test_the_schema_rejects_what_loading_rejects(wrong: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"model": "vit_b16", **wrong}, recipe_schema())


def test_the_schema_is_sound_and_describes_every_key() -> None:
    schema = recipe_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    for definition in (schema, *schema["$defs"].values()):
        assert all("description" in entry or "$ref" in entry for entry in definition["properties"].values())
