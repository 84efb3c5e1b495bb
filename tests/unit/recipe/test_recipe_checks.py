"""Recipes that make no sense are refused in one line that names the file and the YAML path."""

from typing import Any

import jsonschema
import pytest

from exporter.errors import RecipeError
from exporter.recipe import Recipe, override, recipe_from_mapping, recipe_schema
from exporter.schedule import ScheduleRequest


def refused(**keys: Any) -> str:
    with pytest.raises(RecipeError) as caught:
        recipe_from_mapping({"model": "vit_b16", **keys}, "my.yaml")
    assert caught.value.exit_status == 2
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("my.yaml: ")
    return message.removeprefix("my.yaml: ")


def test_only_the_model_is_required() -> None:
    recipe = recipe_from_mapping({"model": "vit_b16"}, "my.yaml")
    assert recipe == Recipe(model=recipe.model)
    assert recipe.model.model == "vit_b16"
    assert recipe.schedule.r == 0


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        pytest.param(
            {"schedule": {"r": "eight"}}, 'schedule.r: expected an integer >= 0, got "eight"', id="text"
        ),
        pytest.param({"schedule": {"r": -1}}, "schedule.r: expected an integer >= 0, got -1", id="negative"),
        pytest.param(
            {"schedule": {"r": True}}, "schedule.r: expected an integer >= 0, got true", id="boolean"
        ),
        pytest.param(
            {"schedule": {"r": 8.0}}, "schedule.r: expected an integer >= 0, got 8.0", id="fraction"
        ),
        pytest.param({"batch": 0}, "batch: expected an integer >= 1, got 0", id="batch-0"),
        pytest.param({"batch": 2**40}, "batch: expected at most 2147483647, got 1099511627776", id="huge"),
        pytest.param({"seed": None}, "seed: expected an integer >= 0, got null", id="null"),
        pytest.param(
            {"image_size": "big"},
            'image_size: expected an integer >= 1, [height, width] or null, got "big"',
            id="size",
        ),
        pytest.param(
            {"length": 2},
            "length: expected an integer from 3 to 65536, a list of such or null, got 2",
            id="length",
        ),
        pytest.param(
            {"length": [32, 32]},
            "length: expected several lengths in ascending order, got [32, 32]",
            id="lengths",
        ),
        pytest.param(
            {"precision": "fp4"},
            'precision: expected one of fp32, fp16, bf16, int8, fp8, got "fp4"',
            id="precision",
        ),
        pytest.param(
            {"model": ["a"]},
            "model: expected text, or a mapping of name, options and preprocess, got a list",
            id="list",
        ),
        pytest.param(
            {"parity": {"cosine": 1.5}}, "parity.cosine: expected at most 1.0, got 1.5", id="cosine"
        ),
        pytest.param({"parity": {"cosine": True}}, "got true", id="boolean-number"),
        pytest.param(
            {"parity": {"max_abs_error": float("nan")}}, "parity.max_abs_error: expected a number", id="nan"
        ),
        pytest.param(
            {"validate": {"accuracy": {"max_drop": float("inf")}}},
            "validate.accuracy.max_drop: expected a number",
            id="infinity",
        ),
        pytest.param(
            {"validate": {"agreement": {"min": 0.98}}},
            "validate.agreement.min: expected percent, from 0 to 100, such as 98, got 0.98",
            id="fraction for percent",
        ),
        pytest.param(
            {"validate": {"agreement": {"min": 101}}},
            "validate.agreement.min: expected at most 100.0, got 101",
            id="more than all",
        ),
        pytest.param(
            {"bench": {"min_speedup": 0}},
            "bench.min_speedup: expected a number > 0 or null, got 0",
            id="no speed",
        ),
        pytest.param(
            {"validate": {"acuracy": {}}},
            'validate.acuracy: unknown key. Did you mean "accuracy"?',
            id="gate",
        ),
        pytest.param(
            {"method": "pitome", "method_options": {"margin": "a"}},
            "method_options.margin: expected a number",
            id="option",
        ),
        pytest.param(
            {"method": "tofu", "method_options": {"split": "many"}},
            'method_options.split: expected an integer >= 0 or auto or null, got "many"',
            id="searched",
        ),
        pytest.param({"name": "../elsewhere"}, "name: expected a folder name", id="name-with-path"),
        pytest.param({"model": ""}, "model.name: expected text, not empty", id="empty"),
        pytest.param({"weights": "a\0b"}, "weights: expected text", id="control-character"),
        pytest.param({"weights": "a\x85b"}, "weights: expected text", id="line-separator"),
        pytest.param({"weights": "a\ud800"}, "weights: expected text", id="half-a-character"),
        pytest.param({"schema_version": 2}, "schema version 1, got 2; upgrade the exporter", id="newer"),
    ],
)
def test_a_wrong_value_is_refused_with_its_path(keys: dict[str, Any], message: str) -> None:
    assert message in refused(**keys)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        pytest.param({"shedule": {"r": 8}}, 'shedule: unknown key. Did you mean "schedule"?', id="top"),
        pytest.param(
            {"schedule": {"r": 8, "alignn": 8}},
            'schedule.alignn: unknown key. Did you mean "align"?',
            id="inner",
        ),
        pytest.param({"zzzzzz": 1}, "zzzzzz: unknown key.", id="nothing-near"),
        pytest.param(
            {"targets": ["o\udcffnx"]}, 'targets[0]: unknown target "o\\udcffnx"', id="no text as a name"
        ),
        pytest.param({"a\udcff": 1}, "expected keys in UTF-8, got a\\udcff", id="no text"),
        pytest.param(
            {"engines": {"\udcff": {"r": 1}}}, "expected keys in UTF-8, got \\udcff", id="no text inside"
        ),
        pytest.param({"targets": ["onx"]}, 'targets[0]: unknown target "onx"; known: onnx, trt', id="target"),
        pytest.param(
            {"method": "pitome", "method_options": {"margn": 0.9}},
            'unknown option of pitome; known: margin, energy, metric, bipartite, deal. Did you mean "margin"?',
            id="option",
        ),
        pytest.param({"method": "tomme"}, 'Did you mean "tome"?', id="method"),
        pytest.param({"disable_passes": ["remove_noops"]}, 'Did you mean "remove_no_ops"?', id="pass"),
    ],
)
def test_an_unknown_name_gets_the_nearest_spelling(keys: dict[str, Any], message: str) -> None:
    assert message in refused(**keys)


ALL_FORMS = "r, r_per_layer, keep_per_layer, keep_rate, slots_for, published, ratio, reduction_ratio"


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        pytest.param(
            {},
            f"expected one of {ALL_FORMS}, got none",
            id="none",
        ),
        pytest.param({"kind": "decreasing"}, "got none", id="kind-without-r"),
        pytest.param(
            {"r": 8, "r_per_layer": [8]},
            "r_per_layer stands with drop_per_layer only; remove r",
            id="r-and-list",
        ),
        pytest.param({"drop_per_layer": [8], "align": 2}, "remove align", id="drops-and-align"),
        pytest.param(
            {"at": [3]},
            f"expected one of {ALL_FORMS}, got none",
            id="at",
        ),
        pytest.param({"keep_rate": 0.5, "r": 1}, "keep_rate stands with at only; remove r", id="rate-and-r"),
        pytest.param(
            {"keep_rate": 0.0},
            "schedule.keep_rate: expected a number > 0 and <= 1 or null, got 0.0",
            id="rate-0",
        ),
        pytest.param({"published": "deit_s-2.9", "r": 1}, "published stands alone; remove r", id="published"),
        pytest.param({"drop_share": 0.5}, "expected one of r, r_per_layer", id="share-of-nothing"),
        pytest.param({"r": 1, "drop_share": 1.5}, "schedule.drop_share: expected at most 1", id="share"),
        pytest.param({"keep_rate": 1.5}, "schedule.keep_rate: expected at most 1", id="rate-above-one"),
        pytest.param(
            {"slots_for": 0.99},
            "schedule.slots_for: expected a number > 1 and <= 100 or null, got 0.99",
            id="slots-for-a-share",
        ),
        pytest.param(
            {"align": 8, "keep_per_layer": [0.5]}, "keep_per_layer stands alone; remove align", id="align"
        ),
        pytest.param(
            {"r_per_layer": [1], "keep_per_layer": [1]}, "got r_per_layer and keep_per_layer", id="both-lists"
        ),
        pytest.param({"r_per_layer": []}, "schedule.r_per_layer: expected a list", id="empty-list"),
        pytest.param({"r_per_layer": None}, "schedule.r_per_layer: expected a list", id="null-list"),
        pytest.param(
            {"r_per_layer": [8, -1]}, "schedule.r_per_layer[1]: expected an integer >= 0, got -1", id="item"
        ),
        pytest.param(
            {"keep_per_layer": [0.5, 100]}, "schedule.keep_per_layer: expected only token counts", id="mixed"
        ),
        pytest.param({"keep_per_layer": [1.5]}, "schedule.keep_per_layer: expected only", id="above-one"),
        pytest.param({"keep_per_layer": [0]}, "schedule.keep_per_layer: expected only", id="zero-tokens"),
        pytest.param({"keep_per_layer": [True]}, "schedule.keep_per_layer: expected only", id="boolean"),
        pytest.param(
            {"r": 8, "kind": "rising"}, "schedule.kind: expected one of constant, decreasing", id="kind"
        ),
    ],
)
def test_a_schedule_that_is_not_exactly_one_form_is_refused(schedule: dict[str, Any], message: str) -> None:
    assert message in refused(schedule=schedule)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        pytest.param({"layout": "nhwc"}, "layout: nhwc needs input: uint8", id="nhwc-floats"),
        pytest.param({"dynamic_batch": True, "batch": 8}, "batch: expected 1", id="dynamic-and-batch"),
        pytest.param({"targets": []}, "targets: expected a list with at least one entry", id="no-target"),
        pytest.param({"targets": ["onnx", "onnx"]}, "targets: expected every name once", id="target-twice"),
        pytest.param(
            {"method": "evit", "method_options": {"margin": 0.9}},
            "unknown option of evit; known: fused",
            id="no-option",
        ),
        pytest.param({"tower": "text", "schedule": {"r": 4}}, "schedule: the text tower", id="merged-text"),
        pytest.param(
            {"bench": {"min_speedup": 1.1, "race": False}}, "min_speedup needs a race", id="gate-without-race"
        ),
        pytest.param({"tower": "text", "schedule": {"keep_per_layer": [0.9]}}, "text tower", id="kept-text"),
        pytest.param({"tower": "text", "input": "uint8"}, "input: means nothing", id="bytes-for-text"),
        pytest.param({"tower": "text", "image_size": 224}, "image_size: means nothing", id="size-for-text"),
    ],
)
def test_values_that_contradict_each_other_are_refused(keys: dict[str, Any], message: str) -> None:
    assert message in refused(**keys)


def test_every_complaint_counts_and_the_first_ones_are_shown() -> None:
    message = refused(seed="a", batch="b", precision="c", layout="d", tower="e")
    assert message.count("expected") == 3
    assert message.endswith("; and 2 more")


@pytest.mark.parametrize(
    ("mapping", "got"),
    [
        pytest.param(None, "got nothing", id="empty"),
        pytest.param([1], "got a list", id="list"),
        pytest.param("vit_b16", "got a str", id="text"),
    ],
)
def test_what_is_no_mapping_is_refused(mapping: object, got: str) -> None:
    with pytest.raises(RecipeError, match=got):
        recipe_from_mapping(mapping, "my.yaml")


def test_a_recipe_without_a_model_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"my\.yaml: model: missing; expected text"):
        recipe_from_mapping({"schedule": {"r": 8}}, "my.yaml")


def test_the_token_optimizer_stands_in_place_of_method_and_schedule() -> None:
    short = {"method": "pitome", "reduction_ratio": 0.3}

    editor = jsonschema.Draft202012Validator(recipe_schema())

    recipe = recipe_from_mapping({"model": "vit_digits", "token_optimizer": short}, "recipe")

    written_out = {"model": "vit_digits", "method": "pitome", "schedule": {"reduction_ratio": 0.3}}
    assert recipe == recipe_from_mapping(written_out, "recipe")
    assert override(recipe, {"schedule.r": 4}).schedule == ScheduleRequest(r=4)
    for also in ({"method": "tome"}, {"schedule": {"r": 3}}):
        document = {"model": "vit_digits", "token_optimizer": short, **also}
        (key,) = also
        with pytest.raises(RecipeError, match=f"token_optimizer stands in place of .*; remove {key}$"):
            recipe_from_mapping(document, "recipe")
        assert not editor.is_valid(document)
    assert editor.is_valid({"model": "vit_digits", "token_optimizer": short})


@pytest.mark.parametrize(
    ("short", "message"),
    [
        pytest.param({}, "token_optimizer.reduction_ratio: missing", id="no-ratio"),
        pytest.param({"reduction_ratio": 1.5}, "reduction_ratio: expected at most 1.0, got 1.5", id="ratio"),
        pytest.param({"reduction_ratio": 0.3, "method": "tom"}, 'Did you mean "tome"', id="method"),
        pytest.param({"reduction_ratio": 0.3, "metod": "tome"}, 'Did you mean "method"', id="key"),
        pytest.param(None, "token_optimizer: expected a mapping", id="null"),
    ],
)
def test_a_token_optimizer_that_says_something_else_is_refused(short: object, message: str) -> None:
    assert message in refused(token_optimizer=short)
