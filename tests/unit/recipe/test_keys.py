"""A key that is declared once is found in YAML, JSON Schema, options, documentation and a sweep's cache key."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any

import click
import pytest

from exporter.cli.commands import export_command, sweep_command
from exporter.cli.options import parameter, recipe_option
from exporter.errors import RecipeError
from exporter.models import ModelRequest
from exporter.pipeline.sweep_conditions import shared_values
from exporter.recipe import (
    Recipe,
    RecipeKey,
    keys,
    load,
    recipe_from_mapping,
    recipe_keys,
    recipe_schema,
    recipe_to_mapping,
    recipe_to_yaml,
    schema,
)
from exporter.recipe.keys import declared_keys
from exporter.recipe.value_types import method_names
from exporter.recipe_key import Key, Positive
from exporter.reduction import method_names as methods_of_the_room
from exporter.schedule import FORMS, ScheduleRequest
from tools.recipe_table import FILE, page

KEYS = [pytest.param(key, id=key.name) for key in recipe_keys()]
RECIPE = Recipe(model=ModelRequest(model="vit_b16", options={"num_classes": 3}))
WITHOUT_OPTION = {"model.name", "parity.max_abs_error", "parity.mean_abs_error", "parity.cosine"}
SCHEDULED = {
    key: replace(RECIPE, schedule=schedule)
    for schedule in (
        ScheduleRequest(r_per_layer=(1,), drop_per_layer=(2,)),
        ScheduleRequest(keep_per_layer=(1,)),
        ScheduleRequest(slots_for=99.0, at=(3,)),
        ScheduleRequest(keep_rate=0.5, at=(3,)),
        ScheduleRequest(published="deit_s-2.9"),
        ScheduleRequest(ratio=0.5),
        ScheduleRequest(reduction_ratio=0.5),
        ScheduleRequest(r=1, drop_share=0.5),
    )
    for key in FORMS[schedule.form]
}


def at(tree: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        tree = tree[part]
    return tree


def properties_at(path: tuple[str, ...]) -> dict[str, Any]:
    """The entry of the JSON Schema for a key."""
    known = recipe_schema()
    fragment: Any = known
    for part in path:
        choices = [fragment, *fragment.get("anyOf", ())]
        resolved = [known["$defs"].get(each.get("$ref", "").rpartition("/")[2], each) for each in choices]
        fragment = next(each["properties"][part] for each in resolved if part in each.get("properties", {}))
    return dict(fragment)


@pytest.mark.parametrize("key", KEYS)
def test_a_key_is_in_yaml_schema_documentation_and_among_the_options(key: RecipeKey) -> None:
    recipe = SCHEDULED.get(key.path[-1], RECIPE)
    written = at(recipe_to_mapping(recipe), key.path)

    assert written == (list(key.of(recipe)) if isinstance(key.of(recipe), tuple) else key.of(recipe))
    assert key.sentence in properties_at(key.path)["description"]
    assert f"| `{key.path[0]}" in FILE.read_text(encoding="utf-8")
    assert (key.key.option is None) == (key.name in WITHOUT_OPTION)
    if key.key.option is not None:
        assert {key.key.option.partition("/")[0]} <= {
            spelling for each in export_command.params for spelling in each.opts
        }


def test_the_documentation_is_what_the_declarations_say() -> None:
    assert FILE.read_text(encoding="utf-8") == page(), "run python -m tools.recipe_table"


@pytest.mark.parametrize("key", KEYS)
def test_a_key_is_shared_by_the_points_of_a_sweep_or_an_axis_or_changes_nothing_built(key: RecipeKey) -> None:
    cached = key.attributes[0] == "model" or key.path[0] in shared_values(RECIPE)

    assert cached == (key.key.sweep is None)
    if cached and key.key.option is not None and key.name != "tower":
        assert parameter(key) in {each.name for each in sweep_command.params}


@dataclass(frozen=True, kw_only=True)
class WithCrop(Recipe):
    """A recipe with one more key.

    Attributes:
        crop: pixels that are kept at the middle of an image.
    """

    crop: Annotated[Positive, Key(option="--crop")] = 7


WithCrop.__doc__ = f"{Recipe.__doc__}{(WithCrop.__doc__ or '').partition('Attributes:')[2]}"


@pytest.fixture
def with_crop(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if `Recipe` had been declared with one more field."""
    caches = (declared_keys, recipe_keys, schema.recipe_document, schema.document_schema)
    for module in (keys, load, schema):
        monkeypatch.setattr(module, "Recipe", WithCrop)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


@pytest.mark.usefixtures("with_crop")
def test_a_new_key_is_one_declaration() -> None:
    recipe: Any = recipe_from_mapping({"model": "vit_b16", "crop": 9}, "test")
    (key,) = [each for each in recipe_keys() if each.name == "crop"]
    option: Any = recipe_option(key)(click.Command("export"))

    assert recipe.crop == 9
    assert "\ncrop: 9\n" in recipe_to_yaml(recipe)
    assert recipe_schema()["properties"]["crop"] == {
        "default": 7,
        "description": "Pixels that are kept at the middle of an image.",
        "maximum": 2147483647,
        "minimum": 1,
        "title": "Crop",
        "type": "integer",
    }
    assert (option.params[0].opts, option.params[0].help) == (["--crop"], key.sentence)
    assert "| `crop` | an integer >= 1 | `7` | `--crop` | Pixels that are kept" in page()
    assert shared_values(recipe)["crop"] == 9
    with pytest.raises(RecipeError, match="test: crop: expected an integer >= 1, got 0"):
        recipe_from_mapping({"model": "vit_b16", "crop": 0}, "test")


def test_the_methods_that_are_listed_without_torch_are_those_of_the_room() -> None:
    assert method_names() == methods_of_the_room()


def test_recipes_and_options_need_no_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; import exporter.cli.commands; import exporter.recipe as r; "
        "r.recipe_to_yaml(r.recipe_from_mapping({'model': 'x', 'method': 'tome'}, 'x'))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_recipes_are_read_where_python_leaves_docstrings_out() -> None:
    code = (
        "import exporter.cli\n"
        "from exporter.recipe import recipe_from_mapping\n"
        "print(recipe_from_mapping({'schema_version': 1, 'model': 'vit_b16', 'batch': 3}, 'x').batch)"
    )

    done = subprocess.run([sys.executable, "-OO", "-c", code], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr
