"""What a race is held with, and what its outcome means for a recipe's gate."""

from dataclasses import replace
from pathlib import Path

import pytest

from exporter.benchmark import (
    BenchReport,
    Contender,
    EngineFile,
    Launch,
    Measurement,
    Race,
    Unavailable,
    report_on,
)
from exporter.errors import GateError, UsageError
from exporter.models import ModelRequest
from exporter.pipeline import BenchOptions
from exporter.pipeline.plan import dense_recipe, unguarded
from exporter.pipeline.racing import asks_for_race, check_options, require_speed
from exporter.recipe import AccuracyGate, Recipe, SpeedGate, Validation
from exporter.schedule import ScheduleRequest
from exporter.targets import Signature, TensorSpec

SPEC = TensorSpec(name="images", dtype="float32", shape=(1, 3, 8, 8))
FILE = EngineFile(target="onnx", path=Path("model.onnx"), signature=Signature(inputs=(SPEC,), outputs=()))


def engine(name: str, *, reduced: bool) -> Contender:
    return Contender(
        name=name,
        kind="engine",
        form=name.split()[0],
        target="onnx",
        batch=1,
        reduced=reduced,
        executed_macs=100,
        engine=FILE,
    )


DENSE = engine("dense onnx", reduced=False)
SLOW = engine("tome-r1 onnx", reduced=True)
FAST = engine("tome-r8 onnx", reduced=True)


def measured(contender: Contender, ms: float) -> Measurement:
    launch = Launch(
        load_ms=1.0,
        first_ms=1.0,
        warm_up_calls=2,
        settled=True,
        rounds=((ms, ms), (ms, ms)),
        other_load=0.0,
        peak_memory_bytes=1,
        peak_since="load",
    )
    return Measurement(contender=contender, launches=(launch, launch))


def report(*missing: Contender) -> BenchReport:
    """Dense takes 10 ms, r = 1 takes 8 ms, r = 8 takes 4 ms."""
    times = {DENSE.name: (DENSE, 10.0), SLOW.name: (SLOW, 8.0), FAST.name: (FAST, 4.0)}
    race = Race(
        measurements=tuple(measured(*each) for each in times.values() if each[0] not in missing),
        unavailable=tuple(Unavailable(contender=each, reason="out of memory") for each in missing),
        threads=1,
        cores=(0,),
        device="cpu",
    )
    return report_on(race, {})


def recipe(least: float | None) -> Recipe:
    return Recipe(model=ModelRequest(model="vit_digits"), bench=SpeedGate(min_speedup=least))


@pytest.mark.parametrize(
    ("least", "label"),
    [(None, "tome-r1"), (1.2, "tome-r1"), (2.4, "tome-r8"), (100.0, "dense")],
)
def test_fast_enough_passes(least: float | None, label: str) -> None:
    require_speed(recipe(least), report(), label)


@pytest.mark.parametrize(("least", "label", "figure"), [(1.3, "tome-r1", "1.25x"), (3, "tome-r8", "2.50x")])
def test_too_slow_says_how_fast(least: float, label: str, figure: str) -> None:
    with pytest.raises(GateError, match=f"{label} onnx at batch 1 is {figure}.*at least {least:g}x"):
        require_speed(recipe(least), report(), label)


def test_one_bundle_does_not_answer_for_another() -> None:
    """Dense over r = 1 is 1.25, and only the bundle with r = 8 asks for 2."""
    require_speed(recipe(2), report(), "tome-r8")


@pytest.mark.parametrize("missing", [FAST, DENSE])
def test_what_could_not_be_timed_does_not_pass(missing: Contender) -> None:
    with pytest.raises(GateError, match="could not be timed .out of memory."):
        require_speed(recipe(0.001), report(missing), "tome-r8")


def test_what_another_bundle_lacks_does_not_matter() -> None:
    require_speed(recipe(2), report(SLOW), "tome-r8")


@pytest.mark.parametrize(
    ("options", "fact"),
    [
        pytest.param(BenchOptions(batches=(1, 0)), "--batch: expected at least 1, got 0", id="batch"),
        pytest.param(BenchOptions(launches=1), "--processes: expected at least 2, got 1", id="launches"),
        pytest.param(BenchOptions(rounds=0), "--rounds: expected at least 1, got 0", id="rounds"),
        pytest.param(BenchOptions(threads=10**6), "threads: expected 1 to", id="threads"),
    ],
)
def test_options_are_refused_before_anything_is_built(options: BenchOptions, fact: str) -> None:
    with pytest.raises(UsageError, match=fact):
        check_options(options)


def test_dense_recipe_differs_in_what_it_merges_and_demands_alone() -> None:
    asked = Recipe(
        model=ModelRequest(model="vit_digits"),
        schedule=ScheduleRequest(r=4),
        method="pitome",
        method_options={"margin": 0.5},
        batch=3,
        input="uint8",
        disable_passes=("remove_dead_tokens",),
        name="mine",
        validate=Validation(accuracy=AccuracyGate(max_drop=1)),
        bench=SpeedGate(min_speedup=2),
    )

    dense = dense_recipe(asked)

    assert dense.schedule == ScheduleRequest()
    assert (dense.name, dense.bench.min_speedup, dense.validate) == (None, None, Validation())
    assert replace(dense, schedule=asked.schedule) == unguarded(asked)
    same = {"schedule": asked.schedule, "name": "mine", "validate": asked.validate, "bench": asked.bench}
    assert replace(dense, **same) == asked  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("model", "r", "asked", "races"),
    [
        pytest.param("vit_fashion", 8, SpeedGate(), True, id="the model that shows a gain"),
        pytest.param("vit_fashion", 8, SpeedGate(race=False), False, id="unless it is switched off"),
        pytest.param("vit_fashion", 0, SpeedGate(race=True), False, id="nothing to compare with"),
        pytest.param("vit_digits", 8, SpeedGate(), False, id="another model"),
        pytest.param("vit_digits", 8, SpeedGate(race=True), True, id="where it is asked"),
        pytest.param("vit_digits", 8, SpeedGate(min_speedup=1.1), True, id="a gate"),
    ],
)
def test_an_export_ends_with_a_race(model: str, r: int, asked: SpeedGate, races: bool) -> None:
    recipe = Recipe(model=ModelRequest(model=model), schedule=ScheduleRequest(r=r), bench=asked)

    assert asks_for_race(recipe) == races
