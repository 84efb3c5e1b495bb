"""The tables that `bench` and `sweep` print."""

from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

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
from exporter.cli.bench_summary import add_speed, print_benched
from exporter.cli.sweep_summary import failed_line, failed_status, print_record
from exporter.models import ModelRequest
from exporter.pipeline import Benched
from exporter.schedule import ScheduleRequest
from exporter.sweep import Built, Evaluation, Failure, Point, PointResult, Solution, SweepRecord, Timed
from exporter.targets import Signature, TensorSpec

SPEC = TensorSpec(name="images", dtype="float32", shape=(1, 3, 8, 8))
FILE = EngineFile(target="onnx", path=Path("model.onnx"), signature=Signature(inputs=(SPEC,), outputs=()))


def engine(name: str, *, reduced: bool) -> Contender:
    macs = 50 if reduced else 100
    return Contender(
        name=name,
        kind="engine",
        form=name.split()[0],
        target="onnx",
        batch=1,
        reduced=reduced,
        executed_macs=macs,
        engine=FILE,
    )


EAGER = Contender(
    name="eager dense",
    kind="module",
    batch=1,
    reduced=False,
    executed_macs=100,
    model=ModelRequest(model="vit_digits"),
)


def measured(contender: Contender, ms: float) -> Measurement:
    launch = Launch(
        load_ms=1.0,
        first_ms=1.0,
        warm_up_calls=2,
        settled=True,
        rounds=((ms, ms, ms), (ms, ms, ms)),
        other_load=0.0,
        peak_memory_bytes=3 << 20,
        peak_since="load",
    )
    return Measurement(contender=contender, launches=(launch, launch))


def printed(report: BenchReport) -> str:
    out = StringIO()
    print_benched(Console(file=out, width=200), Benched(bundles=(), labels=(), report=report))
    return out.getvalue()


def race(*measurements: Measurement, unavailable: tuple[Unavailable, ...] = ()) -> BenchReport:
    raced = Race(measurements=measurements, unavailable=unavailable, threads=1, cores=(0,), device="cpu")
    return report_on(raced, {})


@pytest.mark.parametrize("dense", ["dense onnx", "mine onnx"])
def test_reduced_engine_is_compared_with_eager_and_with_its_dense_engine(dense: str) -> None:
    said = printed(
        race(
            measured(EAGER, 20.0),
            measured(engine(dense, reduced=False), 10.0),
            measured(engine("tome-r2 onnx", reduced=True), 8.0),
        )
    )
    (row,) = [line for line in said.splitlines() if "tome-r2 onnx" in line and "│" in line]
    cells = [cell.strip() for cell in row.strip("│").split("│")]

    assert cells[:5] == ["tome-r2 onnx", "8.00", "8.00", "125.0", "3"]
    assert cells[5].startswith("2.50x")
    assert cells[6].startswith("1.25x")
    assert "merge efficiency of tome-r2 onnx, batch 1: 0.625" in said
    assert "promises 2.00x" in said


def test_what_was_not_timed_is_said() -> None:
    missing = Unavailable(contender=engine("tome-r2 onnx", reduced=True), reason="no such library [here]")

    said = printed(race(measured(EAGER, 20.0), unavailable=(missing,)))

    assert "not timed: tome-r2 onnx, batch 1: no such library [here]" in said


def test_export_counts_the_warnings_of_its_race_and_says_what_it_is_faster_than() -> None:
    report = race(
        measured(EAGER, 20.0),
        measured(engine("dense onnx", reduced=False), 10.0),
        measured(engine("tome-r2 onnx", reduced=True), 8.0),
    )
    lines, out = Table.grid(padding=(0, 2)), StringIO()
    add_speed(
        lines,
        replace(report, warnings=("wide-interval: a / b: 1 to 9", "other-load: a", "wide-interval: c")),
    )
    Console(file=out, width=200).print(lines)

    speed, warnings = out.getvalue().splitlines()
    assert speed.split(maxsplit=2)[:2] == ["speed", "onnx"]
    assert "1.25x (1.25 to 1.25) its dense engine, 2.50x (2.50 to 2.50) eager PyTorch" in speed
    assert "wide-interval (2), other-load (1); see bench.json" in warnings


# Sweeps ---------------------------------------------------------------------------------------------


def result(r: int, failure: Failure | None = None, method: str = "tome") -> PointResult:
    point = Point(schedule=ScheduleRequest(r=r), method=method)
    built = Built(tokens=(17, 17 - r), merged=(r,), gmacs_executed=1.0, gmacs_ratio=1.0)
    return PointResult(
        name=point.name,
        point=point,
        key="0",
        status="failed" if failure else "done",
        built=None if failure else built,
        timed=None if failure else Timed(images_per_s=100.0 + r, latency_ms=10.0),
        failure=failure,
    )


def sweep_record(*points: PointResult, solution: Solution | None = None) -> SweepRecord:
    return SweepRecord(model="tiny", weights_sha256="0", points=points, solution=solution, complete=True)


def failure(status: int) -> Failure:
    return Failure(stage="build", error=f"went wrong with {status}", exit_status=status)


def test_worst_failure_decides_the_status() -> None:
    record = sweep_record(result(0), result(1, failure(2)), result(2, failure(7)), result(3, failure(5)))

    assert failed_status(record) == 7
    assert failed_line(record).startswith(f"error: sweep: 3 of 4 points failed, {result(1).name}: went wrong")


def test_sweep_without_failures_is_done() -> None:
    assert failed_status(sweep_record(result(0), result(1))) == 0


def test_solution_is_told_as_a_command_that_makes_it() -> None:
    best = result(4, method="pitome")
    evaluation = Evaluation(name=best.name, r_per_layer=(4, 4), drop=0.1, measured_speedup=1.6)
    solution = Solution(
        goal="max_drop",
        limit=0.5,
        best=evaluation,
        reached=True,
        explanation="found",
        evaluated=(evaluation,),
    )
    out = StringIO()

    record = sweep_record(best, solution=solution)
    print_record(Console(file=out, width=200), "timm:tiny_model", Path("here"), record)

    assert "python -m exporter timm:tiny_model --method pitome --r-per-layer 4,4" in out.getvalue()
    assert f"bundles/{best.name}" in out.getvalue()
