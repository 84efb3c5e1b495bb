"""From a race made up by hand to `bench.json`."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from exporter.benchmark import BenchReport, Contender, Launch, Measurement, Race, Unavailable, report_on
from exporter.models import ModelRequest
from exporter.records import BlockTime, canonical_json

LAUNCHES, ROUNDS = 3, 2


def contender(name: str, kind: Any, *, batch: int = 1, macs: int = 1000, **fields: Any) -> Contender:
    source: dict[str, Any] = {"model": ModelRequest(model="vit_digits")}
    if kind == "engine":
        source = {"engine": object(), "target": "onnx", "form": name.split()[0]}
    if kind == "program":
        source = {"program": object()}
    reduced = fields.pop("reduced", False)
    return Contender(
        name=name, kind=kind, batch=batch, executed_macs=macs, reduced=reduced, **{**source, **fields}
    )


def timed(
    of: Contender, ms: float, *, by_launch: Sequence[float] = (1.0,) * LAUNCHES, **fields: Any
) -> Measurement:
    """Every call takes as long, but for a factor of its launch."""
    rest: dict[str, Any] = {
        "load_ms": 100.0,
        "first_ms": 9.0,
        "warm_up_calls": 4,
        "settled": True,
        "other_load": 0.0,
        "peak_memory_bytes": 1000,
        "peak_since": "load",
        **fields,
    }
    launches = tuple(Launch(rounds=((ms * factor,) * 3,) * ROUNDS, **rest) for factor in by_launch)
    return Measurement(contender=of, launches=launches)


EAGER = contender("eager dense", "module")
REDUCED = contender("eager reduced", "program", reduced=True, macs=500)
COMPILED = contender("compiled", "compiled")
DENSE = contender("dense onnx", "engine")
R8 = contender("r8 onnx", "engine", reduced=True, macs=500)


def report(*measurements: Measurement, unavailable: tuple[Unavailable, ...] = ()) -> BenchReport:
    race = Race(measurements=measurements, unavailable=unavailable, threads=2, cores=(0, 1), device="cpu")
    return report_on(race, {"cpu": "abacus"})


def test_ratios_are_over_eager_dense_and_over_the_dense_engine() -> None:
    """12 ms eager, 8 compiled, 6 for the dense engine, 4 for the reduced one."""
    found = report(timed(EAGER, 12), timed(COMPILED, 8), timed(REDUCED, 10), timed(DENSE, 6), timed(R8, 4))

    assert {each.name: each.value for each in found.ratios} == pytest.approx(
        {
            "compiled / eager dense": 1.5,
            "eager reduced / eager dense": 1.2,
            "dense onnx / eager dense": 2.0,
            "r8 onnx / eager dense": 3.0,
            "r8 onnx / dense onnx": 1.5,
        }
    )


def test_merge_efficiency_is_over_executed_work() -> None:
    """1.5 times as fast with half the multiplications."""
    found = report(timed(DENSE, 6), timed(R8, 4))

    (each,) = found.efficiencies
    assert (each.target, each.batch, each.macs_ratio) == ("onnx", 1, 2.0)
    assert each.value == pytest.approx(0.75)
    assert found.merge_efficiency() == pytest.approx({"onnx": 0.75})


def test_batch_sizes_are_never_mixed() -> None:
    at_8 = {
        name: contender(name, "engine", batch=8, reduced=name == "r8 onnx")
        for name in ("dense onnx", "r8 onnx")
    }
    found = report(
        timed(EAGER, 10), timed(contender("eager dense", "module", batch=8), 100), timed(at_8["r8 onnx"], 50)
    )

    assert [(each.name, each.batch, round(each.value, 6)) for each in found.ratios] == [
        ("r8 onnx / eager dense", 8, 2.0)
    ]
    assert found.merge_efficiency() == {}


def test_merge_efficiency_is_that_of_the_smallest_batch() -> None:
    both = [
        timed(contender(name, "engine", batch=batch, reduced=name == "r8 onnx", macs=macs), ms)
        for batch, fast in ((8, 20.0), (2, 8.0))
        for name, macs, ms in (("dense onnx", 1000, 16.0 if batch == 2 else 60.0), ("r8 onnx", 500, fast))
    ]

    assert report(*both).merge_efficiency() == pytest.approx(
        {"onnx": 1.0}
    )  # 16 / 8 over 2, not 60 / 20 over 2


def test_several_reduced_engines_of_a_target_are_told_apart() -> None:
    r16 = contender("r16 onnx", "engine", reduced=True, macs=250)

    found = report(timed(DENSE, 8), timed(R8, 4), timed(r16, 4))

    assert found.merge_efficiency() == pytest.approx({"r8 onnx": 1.0, "r16 onnx": 0.5})


def test_a_bundle_finds_its_own_figures_among_those_of_others() -> None:
    r16 = contender("r16 onnx", "engine", reduced=True, macs=250)
    profiled = replace(timed(R8, 4), block_ms={"stem": 1.0, "block_01": 3.0, "block_00": 2.0, "head": 0.5})

    record = report(timed(DENSE, 8), timed(r16, 4), profiled).record("r8")

    assert record.own == {"onnx": "r8 onnx"}
    assert record.merge_efficiency == pytest.approx({"onnx": 1.0})
    assert record.blocks == {"onnx": (BlockTime(block=0, ms=2.0), BlockTime(block=1, ms=3.0))}


def test_engines_of_different_targets_are_not_compared() -> None:
    other = contender("r8 trt", "engine", reduced=True, target="trt")

    assert report(timed(DENSE, 6), timed(other, 4)).ratios == ()


def test_tree_has_the_contract_s_keys() -> None:
    failed = Unavailable(contender=COMPILED, reason="no compiler")
    race = report(timed(EAGER, 12), timed(DENSE, 6), timed(R8, 4), unavailable=(failed,))

    tree = json.loads(canonical_json(race.record()))

    assert set(tree) == {
        "own",
        "blocks",
        "contenders",
        "unavailable",
        "ratios",
        "merge_efficiency",
        "efficiencies",
        "warnings",
        "environment",
    }
    each = next(each for each in tree["contenders"] if each["name"] == "r8 onnx")
    assert each["samples_ms"] == [4.0] * (LAUNCHES * ROUNDS * 3)
    assert [launch["calls"] for launch in each["launches"]] == [[3, 3]] * LAUNCHES
    expected = {
        "target": "onnx",
        "reduced": True,
        "batch": 1,
        "median_ms": 4.0,
        "p90_ms": 4.0,
        "p99_ms": 4.0,
        "iqr_ms": 0.0,
        "images_per_s": 250.0,
        "peak_memory_bytes": 1000,
        "load_ms": 100.0,
        "first_ms": 9.0,
        "infer_samples_per_sec": 250.0,
        "infer_step_time": 4.0,
        "infer_batch_size": 1,
    }
    assert {key: each[key] for key in expected} == expected
    assert tree["unavailable"] == [{"name": "compiled", "batch": 1, "reason": "no compiler"}]
    assert tree["ratios"][-1]["name"] == "r8 onnx / dense onnx"
    assert tree["ratios"][-1]["interval"] == pytest.approx([1.5, 1.5])
    assert tree["efficiencies"][0]["macs_ratio"] == 2.0
    assert tree["environment"] == {"cpu": "abacus"}


def test_calm_race_has_no_warnings() -> None:
    assert report(timed(EAGER, 12), timed(DENSE, 6), timed(R8, 4)).warnings == ()


@pytest.mark.parametrize(
    ("measurement", "name", "words"),
    [
        pytest.param(
            timed(DENSE, 6, settled=False), "unsettled", "3 of 3 launches", id="still changing after warm-up"
        ),
        pytest.param(
            timed(DENSE, 6, by_launch=(1.0, 1.0, 1.2)), "launches-differ", "20% apart", id="processes differ"
        ),
        pytest.param(
            timed(DENSE, 6, other_load=0.5), "other-load", "25% of its 2 cores", id="half a core of two"
        ),
        pytest.param(
            timed(DENSE, 6, peak_since="start"), "memory-with-loading", "high-water", id="whole life's peak"
        ),
    ],
)
def test_warning_has_a_name(measurement: Measurement, name: str, words: str) -> None:
    (warning,) = report(measurement).warnings

    assert warning.startswith(f"{name}: ")
    assert "dense onnx, batch 1" in warning and words in warning


def test_slow_outliers_are_counted() -> None:
    """One call of ten takes twice as long."""
    launch = timed(DENSE, 6).launches[0]
    rounds = ((6.0,) * 9 + (12.0,),)
    slow = Measurement(contender=DENSE, launches=(Launch(**{**vars(launch), "rounds": rounds}),) * LAUNCHES)

    (warning,) = report(slow).warnings

    assert warning.startswith("slow-outliers: ") and "10% of its calls" in warning


def test_meaningless_ratio_is_warned_about() -> None:
    """Launches at 1, 2 and 4 times: no interval of three can be narrow."""
    found = report(timed(EAGER, 10), timed(DENSE, 5, by_launch=(1.0, 2.0, 4.0)))

    assert [each for each in found.warnings if each.startswith("wide-interval: dense onnx / eager dense")]


def test_missing_baseline_is_said() -> None:
    found = report(timed(DENSE, 6), unavailable=(Unavailable(contender=EAGER, reason="too large"),))

    assert found.warnings == (
        "no-baseline: eager dense, batch 1 could not be timed: no ratio compares with it",
    )


def test_notes_are_passed_on() -> None:
    noted = Measurement(contender=DENSE, launches=timed(DENSE, 6).launches, notes=("threads: its own",))

    assert report(noted).warnings == ("threads: its own (dense onnx, batch 1)",)
