"""Any recipe, written as YAML and read back, is the same recipe; options override it by YAML path."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.errors import RecipeError
from exporter.models import ModelRequest
from exporter.recipe import (
    AccuracyGate,
    AgreementGate,
    InputKind,
    Layout,
    ParityGate,
    Recipe,
    SpeedGate,
    Validation,
    check,
    override,
    recipe_from_mapping,
    recipe_to_mapping,
    recipe_to_yaml,
)
from exporter.recipe.value_types import pass_names
from exporter.recipe.yaml_text import parse_yaml
from exporter.schedule import ScheduleRequest
from exporter.targets import TARGETS

TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1)
COUNTS = st.integers(0, 2**31 - 1)
LENGTHS = st.integers(3, 65536)
SIZES = st.integers(1, 2**31 - 1)
AMOUNTS = st.none() | st.floats(0, allow_nan=False, allow_infinity=False)
FRACTIONS = st.floats(0, 1, exclude_min=True)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
OPTION_VALUES: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers(-(2**31), 2**31) | FLOATS | TEXTS | st.tuples(SIZES, SIZES)
)
LISTS = st.lists(COUNTS, min_size=1, max_size=30).map(tuple)

SCHEDULES = st.one_of(
    st.builds(
        ScheduleRequest,
        kind=st.sampled_from(["constant", "decreasing", "increasing"]),
        r=COUNTS,
        align=st.none() | SIZES,
        drop_share=st.none() | FRACTIONS,
    ),
    st.builds(ScheduleRequest, published=TEXTS),
    st.builds(ScheduleRequest, ratio=FRACTIONS),
    st.builds(ScheduleRequest, r_per_layer=LISTS, drop_per_layer=st.none() | LISTS),
    st.builds(ScheduleRequest, keep_rate=FRACTIONS, at=st.none() | LISTS),
    st.builds(ScheduleRequest, slots_for=st.floats(1.5, 100.0), at=st.none() | LISTS),
    st.builds(
        ScheduleRequest,
        keep_per_layer=st.lists(SIZES, min_size=1).map(tuple) | st.lists(FRACTIONS, min_size=1).map(tuple),
    ),
)
IMAGES: st.SearchStrategy[tuple[InputKind, Layout]] = st.sampled_from(
    [("float", "nchw"), ("uint8", "nchw"), ("uint8", "nhwc")]
)
METHODS: st.SearchStrategy[tuple[str, dict[str, float]]] = st.tuples(
    st.sampled_from(["tome", "pitome"]), st.just({})
) | st.tuples(
    st.just("pitome"), st.fixed_dictionaries({"margin": st.floats(allow_nan=False, allow_infinity=False)})
)
BATCHES = st.tuples(SIZES, st.just(False)) | st.just((1, True))


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    kind, layout = draw(IMAGES)
    method, options = draw(METHODS)
    batch, dynamic = draw(BATCHES)
    return Recipe(
        model=ModelRequest(
            model=draw(TEXTS),
            weights=draw(st.sampled_from(["pretrained", "random"]) | TEXTS),
            seed=draw(st.integers(0, 2**63 - 1)),
            image_size=draw(st.none() | SIZES | st.tuples(SIZES, SIZES)),
            length=draw(
                st.none() | LENGTHS | st.sets(LENGTHS, min_size=1).map(lambda each: tuple(sorted(each)))
            ),
            options=draw(st.dictionaries(TEXTS, OPTION_VALUES, max_size=3)),
            preprocess=draw(st.none() | TEXTS),
        ),
        name=draw(st.none() | st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", fullmatch=True)),
        method=method,
        method_options=options,
        proportional_attention=draw(st.none() | st.booleans()),
        schedule=draw(SCHEDULES),
        input=kind,
        layout=layout,
        batch=batch,
        dynamic_batch=dynamic,
        precision=draw(st.sampled_from(["fp32", "fp16", "bf16"])),
        targets=tuple(draw(st.lists(st.sampled_from(TARGETS), min_size=1, unique=True))),
        disable_passes=tuple(draw(st.lists(st.sampled_from(pass_names()), unique=True))),
        parity=draw(
            st.builds(
                ParityGate,
                max_abs_error=AMOUNTS,
                mean_abs_error=AMOUNTS,
                cosine=st.none() | st.floats(-1, 1),
            )
        ),
        validate=draw(
            st.builds(
                Validation,
                data=st.none() | TEXTS,
                unlabelled=st.booleans(),
                pairs=st.none() | TEXTS,
                classes=st.none() | TEXTS,
                labels_in_order=st.booleans(),
                templates=st.none() | TEXTS,
                accuracy=st.builds(AccuracyGate, max_drop=AMOUNTS),
                agreement=st.builds(AgreementGate, min=st.none() | st.floats(1, 100, exclude_min=True)),
            )
        ),
        bench=draw(st.builds(SpeedGate, min_speedup=st.none() | st.floats(0.01, 100))),
    )


@settings(deadline=None)
@given(recipes())
def test_a_recipe_written_and_read_back_is_equal_and_passes_its_own_check(recipe: Recipe) -> None:
    text = recipe_to_yaml(recipe)
    again = recipe_from_mapping(parse_yaml(text, "my.yaml"), "my.yaml")
    assert again == recipe
    assert recipe_to_yaml(again) == text
    text.encode("utf-8")
    assert check(recipe) == recipe


def test_a_recipe_built_wrongly_in_python_fails_its_check() -> None:
    wrong = Recipe(model=ModelRequest(model="vit_b16"), schedule=ScheduleRequest(r=8, r_per_layer=(8,)))
    with pytest.raises(
        RecipeError, match="recipe: schedule: r_per_layer stands with drop_per_layer only; remove r"
    ):
        check(wrong)


def test_keys_keep_the_order_of_the_documentation() -> None:
    mapping = recipe_to_mapping(vit())
    assert list(mapping)[:5] == ["schema_version", "name", "model", "weights", "seed"]
    assert [line.split(":")[0] for line in recipe_to_yaml(vit()).splitlines() if line[0] != " "] == list(
        mapping
    )


def vit(**schedule: Any) -> Recipe:
    return Recipe(model=ModelRequest(model="vit_b16"), schedule=ScheduleRequest(**schedule))


def test_an_option_replaces_one_value() -> None:
    changed = override(
        vit(r=8, kind="decreasing"), {"schedule.r": 16, "model": "vit_s16", "targets": ("trt",)}
    )
    assert changed.schedule == ScheduleRequest(r=16, kind="decreasing")
    assert changed.model.model == "vit_s16"
    assert changed.targets == ("trt",)


@pytest.mark.parametrize(
    ("before", "values", "after"),
    [
        pytest.param(
            {"r": 8, "align": 8}, {"schedule.r_per_layer": [1, 2]}, {"r_per_layer": (1, 2)}, id="to-list"
        ),
        pytest.param({"r_per_layer": (1, 2)}, {"schedule.r": 4}, {"r": 4}, id="to-r"),
        pytest.param(
            {"r_per_layer": (1,)},
            {"schedule.kind": "increasing", "schedule.r": 4},
            {"r": 4, "kind": "increasing"},
            id="to-r-and-kind",
        ),
        pytest.param({"r": 8}, {"schedule.keep_per_layer": (0.5,)}, {"keep_per_layer": (0.5,)}, id="to-keep"),
        pytest.param({"keep_per_layer": (9,)}, {"batch": 2}, {"keep_per_layer": (9,)}, id="untouched"),
        pytest.param(
            {"keep_rate": 0.5, "at": (3,)}, {"schedule.slots_for": 99.0}, {"slots_for": 99.0}, id="to-slots"
        ),
    ],
)
def test_an_option_for_another_form_of_schedule_replaces_the_form(
    before: dict[str, Any], values: dict[str, Any], after: dict[str, Any]
) -> None:
    assert override(vit(**before), values).schedule == ScheduleRequest(**after)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        pytest.param({"schedule.r": -1}, "options: schedule.r: expected an integer >= 0, got -1", id="value"),
        pytest.param({"schedule.rr": 1}, "options: schedule.rr: unknown key", id="path"),
        pytest.param(
            {"batch.size": 1}, "options: batch.size: batch holds one value, not keys", id="too-deep"
        ),
        pytest.param({"schedule.r": 8, "schedule.r_per_layer": [8]}, "remove r", id="two-forms"),
    ],
)
def test_a_wrong_option_is_refused_by_its_yaml_path(values: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        override(vit(r=4), values)
    assert message in str(caught.value)


def test_kind_alone_does_not_turn_an_explicit_list_into_a_dense_model() -> None:
    with pytest.raises(RecipeError, match="r_per_layer stands with drop_per_layer only"):
        override(vit(r_per_layer=(1, 2)), {"schedule.kind": "decreasing"})
