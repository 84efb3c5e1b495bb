"""Figures against times whose ratios are known, and targets that are met, missed, or never run."""

import pytest

from tests.unit.tools.gpu_check_cases import baseline, job, timed
from tools.gpu.figures import Row, rows
from tools.gpu.results import Entry, JobResult
from tools.gpu.verdicts import verdicts

DENSE = timed("compile", "dense", window_ms=2.0, latency_ms=3.0, executed_macs=200)


def reduced(**known: object) -> Entry:
    settings = {"window_ms": 1.25, "latency_ms": 2.0, "executed_macs": 125} | known
    return timed("compile", "r13", **settings)  # type: ignore[arg-type]


def figures(*jobs: JobResult) -> dict[str, Row]:
    return {row.entry.name: row for row in rows(jobs)}


def test_throughput_latency_and_efficiency_follow_from_their_definitions() -> None:
    row = figures(job(baseline(4.0), DENSE, reduced()))["compile r13 fp16"]
    assert row.over_dense and row.over_baseline and row.latency_over_dense and row.efficiency

    assert row.images_per_s == pytest.approx(64 / 1.25e-3)
    assert row.latency_ms == pytest.approx(2.0)
    assert row.over_dense.value == pytest.approx(2.0 / 1.25)
    assert row.over_baseline.value == pytest.approx(4.0 / 1.25)
    assert row.latency_over_dense.value == pytest.approx(3.0 / 2.0)
    assert row.macs_ratio == pytest.approx(200 / 125)
    assert row.efficiency.value == pytest.approx(1.0)


def test_dense_counterpart_is_of_the_same_kind_precision_and_replay() -> None:
    others = (
        timed("aoti", "dense", window_ms=50.0, latency_ms=50.0),
        timed("compile", "dense", window_ms=50.0, latency_ms=50.0, precision="bf16"),
        timed("compile", "dense", window_ms=50.0, latency_ms=50.0, cuda_graph=True),
    )

    row = figures(job(*others, DENSE, reduced()))["compile r13 fp16"]

    assert row.over_dense is not None
    assert row.over_dense.value == pytest.approx(2.0 / 1.25)


def test_without_a_dense_counterpart_there_is_no_efficiency() -> None:
    row = figures(job(baseline(), reduced()))["compile r13 fp16"]

    assert (row.over_dense, row.macs_ratio, row.efficiency) == (None, None, None)


def test_contenders_of_different_jobs_are_never_compared() -> None:
    row = figures(job(DENSE), job(reduced()))["compile r13 fp16"]

    assert row.over_dense is None


def statuses(*jobs: JobResult) -> list[str]:
    return [verdict.status for verdict in verdicts(rows(jobs))]


def test_targets_that_nothing_was_timed_for_are_not_run() -> None:
    assert statuses() == ["not run", "not run", "not run"]


def test_targets_are_met_by_an_engine_as_fast_as_its_arithmetic() -> None:
    large = job(baseline(4.0), DENSE, reduced())
    single = job(baseline(), DENSE, reduced(), batch=1)

    assert statuses(large, single) == ["met", "met", "met"]


@pytest.mark.parametrize(
    ("jobs", "expected"),
    [
        pytest.param((job(baseline(4.0), DENSE, reduced(window_ms=1.4)),), "missed", id="efficiency 0.89"),
        pytest.param(
            (
                job(baseline(4.0), DENSE, reduced()),
                job(baseline(4.0), DENSE, reduced(window_ms=1.4), model="ViT-L/16"),
            ),
            "missed",
            id="one of two models",
        ),
        pytest.param((job(baseline(), DENSE, reduced(window_ms=1.4), batch=8),), "not run", id="batch 8"),
    ],
)
def test_efficiency_is_demanded_of_every_engine_at_large_batches(
    jobs: tuple[JobResult, ...], expected: str
) -> None:
    assert statuses(*jobs)[0] == expected


def test_slower_single_call_misses_the_target_however_high_the_throughput() -> None:
    assert statuses(job(DENSE, reduced(latency_ms=3.1), batch=1))[1] == "missed"


def test_less_than_twice_as_fast_as_eager_misses_the_target() -> None:
    assert statuses(job(baseline(2.4), DENSE, reduced()))[2] == "missed"


def test_program_counts_as_an_engine_only_where_it_is_replayed() -> None:
    def program(**known: object) -> tuple[Entry, Entry]:
        dense = timed("program", "dense", window_ms=2.0, latency_ms=3.0, executed_macs=200, **known)
        return dense, timed("program", "r13", window_ms=1.25, latency_ms=2.0, executed_macs=125, **known)

    assert statuses(job(*program()))[0] == "not run"
    assert statuses(job(*program(cuda_graph=True)))[0] == "met"
    assert statuses(job(*program(cuda_graph=True, precision="fp32")))[0] == "not run"
