"""The content of a sweep's report: every point, how quality falls as more tokens merge, and the Pareto front.

In: the record of `sweep.json`. Out: a `ReportContent`.
"""

import shlex
from collections.abc import Iterable

from exporter.report import number_text as show
from exporter.report.content import (
    Commands,
    Facts,
    Headline,
    LineChart,
    Listing,
    Paragraph,
    ParetoChart,
    Part,
    ReportContent,
    Section,
    Series,
    Table,
    absent,
    section,
)
from exporter.report.speed_sections import machine
from exporter.sweep import Evaluation, Point, PointResult, Solution, SweepRecord

_MEASURES = {
    "top1": "top-1, %",
    "top1_agreement": "same top-1 as dense, %",
    "cosine_mean": "mean cosine to dense",
}
_GOALS = {"max_drop": "at most {} points of top-1 lost", "min_speedup": "at least {} times faster"}


def sweep_content(record: SweepRecord) -> ReportContent:
    """Everything that a sweep's report says, in order."""
    quality = f"quality on {record.data}" if record.data is not None else "quality not measured"
    solution = (_solution_section(record.solution),) if record.solution is not None else ()
    return ReportContent(
        title=f"Sweep of {record.model}",
        subtitle=f"{show.count(len(record.points), 'point')}, {quality}, weights {record.weights_sha256[:12]}",
        headlines=_headlines(record),
        sections=(
            *solution,
            _front_section(record),
            _curve_section(record),
            _points_section(record),
            _failures_section(record),
            _remarks_section(record),
            _reproduction_section(record),
        ),
    )


def _headlines(record: SweepRecord) -> tuple[Headline, ...]:
    states = [result.status for result in record.points]
    done, failed, left = (states.count(state) for state in ("done", "failed", "open"))
    progress = Headline(
        label="Points",
        value=f"{done} of {len(states)} done",
        detail=f"{failed} failed, {left} not run",
        tone="bad" if failed else "plain" if record.complete else "absent",
    )
    return progress, _fastest(record), _front_headline(record)


def _fastest(record: SweepRecord) -> Headline:
    measured = [(each.speedup, each.name) for each in record.points if each.speedup is not None]
    if not measured:
        return Headline(label="Fastest over its dense engine", value="not measured", tone="absent")
    speedup, name = max(measured, key=lambda pair: pair[0].value)
    return Headline(
        label="Fastest over its dense engine",
        value=show.times(speedup.value),
        detail=f"{show.times_interval(speedup.interval)}: {name}",
    )


def _front_headline(record: SweepRecord) -> Headline:
    if not record.front:
        return Headline(label="Pareto front", value="none", detail="quality or speed missing", tone="absent")
    return Headline(
        label="Pareto front",
        value=show.count(len(record.front), "point"),
        detail=f"from {record.front[0]} to {record.front[-1]}",
    )


def _front_section(record: SweepRecord) -> Section:
    title, measure = "Quality against throughput", record.quality_measure
    if measure is None:
        return section(title, absent("Quality was not measured."))
    groups: dict[str, list[tuple[float, float, bool]]] = {}
    for result in record.points:
        value = result.quality.of(measure)
        if value is not None and result.images_per_s is not None:
            place = (result.images_per_s, value, result.name in record.front)
            groups.setdefault(_series_name(result, record.points), []).append(place)
    if not groups:
        return section(title, absent("No point has both a quality and a throughput."))
    chart = ParetoChart(
        title="Filled points are on the front: no other point is better in both",
        x_label=f"{record.counted} per second",
        y_label=_MEASURES[measure],
        series=tuple(
            Series(
                name=name,
                points=tuple((x, y) for x, y, _ in places),
                marked=tuple(on_front for _, _, on_front in places),
            )
            for name, places in groups.items()
        ),
    )
    return section(title, chart)


def _curve_section(record: SweepRecord) -> Section:
    title, measure = "Quality against r", record.quality_measure
    series = [] if measure is None else list(_curves(record))
    if measure is None or not series:
        return section(title, absent("No point has both a quality and one r for all blocks."))
    bounded = any(bound is not None for each in series for bound in each.bounds)
    text = (
        f"Bars are the 95 % interval of the difference to the dense eager model on the same {record.counted}."
    )
    chart = LineChart(
        title="Quality as more tokens merge in every block",
        x_label="r",
        y_label=_MEASURES[measure],
        series=tuple(series),
        from_zero=False,
    )
    return section(title, chart, *([Paragraph(text=text)] if bounded else []))


def _curves(record: SweepRecord) -> Iterable[Series]:
    """A curve per method and engine, each starting at its dense point."""
    dense = [result for result in record.points if result.point.is_dense]
    reduced = [result for result in record.points if _has_one_r(result) and not result.point.is_dense]
    for name in dict.fromkeys(_series_name(result, record.points) for result in reduced):
        own = [result for result in reduced if _series_name(result, record.points) == name]
        start = [result for result in dense if result.point == own[0].point.dense]
        rows = sorted(
            ((float(each.point.schedule.r), *_quality(record, each)) for each in (*start, *own)),
            key=lambda row: row[0],
        )
        known = [(r, value, bounds) for r, value, bounds in rows if value is not None]
        if known:
            yield Series(
                name=name,
                points=tuple((r, value) for r, value, _ in known),
                bounds=tuple(bounds for _, _, bounds in known),
            )


def _has_one_r(result: PointResult) -> bool:
    schedule = result.point.schedule
    return schedule.form == "r" and schedule.r >= 0


def _quality(record: SweepRecord, result: PointResult) -> tuple[float | None, tuple[float, float] | None]:
    """A point's quality, and its bounds where the difference to dense has an interval."""
    assert record.quality_measure is not None
    value, difference = result.quality.of(record.quality_measure), result.quality.difference
    if value is None or difference is None or record.quality_measure != "top1":
        return value, None
    dense = value - difference.top1
    return value, (dense + difference.interval[0], dense + difference.interval[1])


def _series_name(result: PointResult, points: Iterable[PointResult]) -> str:
    """The method, and whatever else differs between the sweep's points but r."""
    points = [each for each in points if not each.point.is_dense]
    asked = result.point
    if asked.is_dense:
        words = ["dense"]
        options: list[tuple[str, set[str]]] = []
    else:
        words = [asked.method, *(f"{name}={_shown(value)}" for name, value in asked.method_options)]
        kinds = {each.point.schedule.kind for each in points}
        aligns = {str(each.point.schedule.align) for each in points}
        options = [
            (asked.schedule.kind, set(kinds)),
            ("no alignment" if asked.schedule.align is None else f"align {asked.schedule.align}", aligns),
        ]
    options += [
        (asked.precision, {each.point.precision for each in points}),
        (asked.target, {each.point.target for each in points}),
    ]
    return " ".join([*words, *(word for word, choices in options if len(choices) > 1)])


def _shown(value: bool | int | float | str) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).lower()


def _points_section(record: SweepRecord) -> Section:
    measure = record.quality_measure
    table = Table(
        caption="Every point, in the order of the grid",
        headings=(
            *("point", "front", "status", "tokens", "GMACs executed"),
            *([_MEASURES[measure]] if measure else []),
            *("top-1 gained (95 %)", f"{record.counted}/s", "ms", "speedup (95 %)"),
        ),
        rows=tuple(_point_row(record, result) for result in record.points),
        texts=frozenset({0, 1, 2}),
    )
    text = "Speedup is over the dense engine of the same target and precision."
    return section("Points", table, Paragraph(text=text))


def _point_row(record: SweepRecord, result: PointResult) -> tuple[str, ...]:
    none = show.NOT_MEASURED
    built, timed, speedup = result.built, result.timed, result.speedup
    gained = result.quality.difference
    quality = [_quality_text(record, result)] if record.quality_measure else []
    return (
        result.name,
        "yes" if result.name in record.front else "",
        "not run" if result.status == "open" else result.status,
        f"{built.tokens[0]} to {built.tokens[-1]}" if built and built.tokens else none,
        show.significant(built.gmacs_executed) if built else none,
        *quality,
        show.points_with_interval(gained.top1, gained.interval) if gained else none,
        show.per_second(result.images_per_s),
        show.milliseconds(timed.latency_ms if timed else None),
        f"{show.times(speedup.value)} ({show.times_interval(speedup.interval)})" if speedup else none,
    )


def _quality_text(record: SweepRecord, result: PointResult) -> str:
    value = result.quality.of(record.quality_measure) if record.quality_measure else None
    if value is None:
        return show.NOT_MEASURED
    return f"{value:.4f}" if record.quality_measure == "cosine_mean" else f"{value:.2f}"


def _failures_section(record: SweepRecord) -> Section:
    rows = tuple(
        (each.name, each.failure.stage, str(each.failure.exit_status), each.failure.error)
        for each in record.points
        if each.failure is not None
    )
    left = [each.name for each in record.points if each.status == "open"]
    parts: list[Part] = []
    if rows:
        headings = ("point", "stage", "exit status", "why")
        parts.append(Table(caption="Failed", headings=headings, rows=rows, texts=frozenset({0, 1, 3})))
    if left:
        text = f"Not run: {', '.join(left)}. The same command goes on where the sweep stopped."
        parts.append(absent(text))
    return section("Failed and missing points", *(parts or [Paragraph(text="None.")]))


def _solution_section(solution: Solution) -> Section:
    goal = _GOALS[solution.goal].format(f"{solution.limit:g}")
    verdict = Paragraph(
        text=f"Asked for: {goal}. {'Found' if solution.reached else 'Not reached'}: {solution.explanation}",
        tone="plain" if solution.reached else "bad",
    )
    best: tuple[Part, ...] = ()
    if solution.best is not None:
        label = "best schedule" if solution.reached else "nearest schedule"
        best = (Facts(rows=((label, solution.best.name), *solution.best.lists.items())),)
    table = Table(
        caption="Everything that the solver looked at, in that order",
        headings=("point", "r per layer", "points lost", "predicted speedup", "measured speedup"),
        rows=tuple(_evaluation_row(each) for each in solution.evaluated),
        texts=frozenset({0, 1}),
    )
    return section("Solution", verdict, *best, table)


def _evaluation_row(each: Evaluation) -> tuple[str, ...]:
    none = show.NOT_MEASURED
    return (
        each.name,
        "; dropped: ".join(each.lists.values()),
        none if each.drop is None else f"{each.drop:.2f}",
        none if each.predicted_speedup is None else show.times(each.predicted_speedup),
        none if each.measured_speedup is None else show.times(each.measured_speedup),
    )


def _remarks_section(record: SweepRecord) -> Section:
    remarks = list(record.notes)
    remarks += [f"{each.name}: {note}" for each in record.points if each.built for note in each.built.notes]
    remarks += [
        f"{each.name}: {line}" for each in record.points if each.timed for line in each.timed.warnings
    ]
    listing = Listing(items=tuple(remarks)) if remarks else Paragraph(text="No remarks.")
    return section("Remarks and environment", listing, *machine(record.environment))


def _aligns(gridded: Iterable[Point]) -> list[int]:
    """The multiples that token counts were moved to; none if that was not asked for."""
    aligns = dict.fromkeys(point.schedule.align or 1 for point in gridded if not point.is_dense)
    return [] if list(aligns) == [1] else list(aligns)


def _reproduction_section(record: SweepRecord) -> Section:
    points = [result.point for result in record.points]
    spread = [result.point for result in record.points if _has_one_r(result)]
    rated = [point for point in points if point.schedule.form == "keep_rate"]
    gridded = [*spread, *rated]
    axes: dict[str, Iterable[object]] = {
        "--r": sorted({point.schedule.r for point in spread}),
        "--keep-rate": sorted({point.schedule.keep_rate or 1.0 for point in rated}),
        "--method": dict.fromkeys(point.method for point in gridded if not point.is_dense),
        "--schedule": dict.fromkeys(point.schedule.kind for point in spread if not point.is_dense),
        "--align": _aligns(spread),
        "--precision": dict.fromkeys(point.precision for point in points),
        "--target": dict.fromkeys(point.target for point in points),
    }
    words = ["python -m exporter sweep", shlex.quote(record.model)]
    words += [
        f"{option} {shlex.quote(','.join(map(str, values)))}" for option, values in axes.items() if values
    ]
    if record.data is not None:
        words.append("--data DIR")
    if record.solution is not None:
        words.append(f"--{record.solution.goal.replace('_', '-')} {record.solution.limit:g}")
    parts: list[Part] = [Commands(lines=(" ".join([*words, "--out again"]),))]
    if len(gridded) < len(points):
        text = (
            "Points with a schedule of their own for each block come from the solver and are not on the grid."
        )
        parts.append(Paragraph(text=text))
    if any(point.method_options for point in points):
        parts.append(Paragraph(text="Options of the methods are not in this line; they are in sweep.json."))
    return section("How to reproduce", *parts)
