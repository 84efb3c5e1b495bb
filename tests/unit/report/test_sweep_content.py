"""What a sweep's report says, against a record that was worked out by hand."""

from dataclasses import replace
from pathlib import Path

import pytest

from exporter.errors import BundleError
from exporter.report import report_sweep
from exporter.report.content import LineChart, Paragraph, ParetoChart, Section, Table
from exporter.report.sweep_content import sweep_content
from exporter.sweep import SweepRecord, write_record
from tests.support.report_sweep import FRONT, IMAGES_PER_S, TOP1, sweep_record


@pytest.fixture(scope="module")
def sections() -> dict[str, Section]:
    return {section.title: section for section in sweep_content(sweep_record()).sections}


def only(section: Section, kind: type) -> object:
    (part,) = [part for part in section.parts if isinstance(part, kind)]
    return part


def rows(section: Section) -> list[dict[str, str]]:
    table = only(section, Table)
    assert isinstance(table, Table)
    return [dict(zip(table.headings, row, strict=True)) for row in table.rows]


def text_of(record: SweepRecord, title: str) -> str:
    (section,) = [each for each in sweep_content(record).sections if each.title == title]
    return " ".join(part.text for part in section.parts if isinstance(part, Paragraph))


def test_every_point_is_listed_with_its_figures(sections: dict[str, Section]) -> None:
    points = rows(sections["Points"])

    assert len(points) == 9
    assert points[2] == {
        "point": "tome-constant-r4-fp32-onnx",
        "front": "yes",
        "status": "done",
        "tokens": "65 to 57",
        "GMACs executed": "0.036",
        "top-1, %": "97.75",
        "top-1 gained (95 %)": "-0.50 (-1.00 to +0.00)",
        "images/s": "560",
        "ms": "1.79",
        "speedup (95 %)": "1.40× (1.27 to 1.52)",  # noqa: RUF001
    }
    assert [row["point"] for row in points if row["front"]] == list(FRONT)
    assert [row["status"] for row in points] == [*["done"] * 7, "failed", "not run"]


def test_pareto_chart_has_every_measured_point_and_marks_the_front(sections: dict[str, Section]) -> None:
    chart = only(sections["Quality against throughput"], ParetoChart)

    assert isinstance(chart, ParetoChart)
    drawn = {each.name: list(zip(each.points, each.marked, strict=True)) for each in chart.series}
    assert drawn == {
        "dense": [((400.0, 98.25), True)],
        "tome": [((480.0, 98.0), True), ((560.0, 97.75), True), ((700.0, 96.5), False)],
        "pitome": [((480.0, 97.5), False), ((560.0, 97.25), False), ((700.0, 97.0), True)],
    }


def test_curves_start_at_dense_and_carry_the_interval_of_the_difference(sections: dict[str, Section]) -> None:
    chart = only(sections["Quality against r"], LineChart)

    assert isinstance(chart, LineChart)
    assert [each.name for each in chart.series] == ["tome", "pitome"]
    for series in chart.series:
        curve = {0: 98.25, **TOP1[series.name]}
        assert series.points == tuple((float(r), value) for r, value in curve.items())
        assert series.bounds == tuple((value - 0.5, value + 0.5) for value in curve.values())


def test_headlines_count_points_and_name_the_fastest() -> None:
    headlines = {each.label: each for each in sweep_content(sweep_record()).headlines}

    assert headlines["Points"].value == "7 of 9 done"
    assert headlines["Points"].detail == "1 failed, 1 not run"
    assert headlines["Fastest over its dense engine"].value == "1.75×"  # noqa: RUF001
    assert IMAGES_PER_S[6] / IMAGES_PER_S[0] == 1.75
    assert headlines["Pareto front"].value == "4 points"


def test_failed_and_missing_points_are_named_with_the_reason(sections: dict[str, Section]) -> None:
    section = sections["Failed and missing points"]

    assert list(rows(section)[0].values()) == [
        "tome-constant-r8-fp32-onnx",
        "build",
        "5",
        "parity: off by a mile",
    ]
    assert "Not run: pitome-constant-r8-fp32-onnx." in text_of(sweep_record(), section.title)


def test_sweep_without_failures_says_so() -> None:
    record = replace(sweep_record(), points=sweep_record().points[:7])

    assert text_of(record, "Failed and missing points") == "None."


def test_solution_comes_first_and_says_whether_the_goal_was_reached() -> None:
    record = sweep_record()
    assert record.solution is not None
    missed = replace(record, solution=replace(record.solution, reached=False))

    assert sweep_content(record).sections[0].title == "Solution"
    assert "at most 0.5 points of top-1 lost. Found: 1.50 times as fast" in text_of(record, "Solution")
    assert "Not reached: 1.50 times" in text_of(missed, "Solution")


def test_sweep_without_quality_says_so() -> None:
    record = replace(sweep_record(), quality_measure=None, data=None, front=(), solution=None)

    assert text_of(record, "Quality against throughput") == "Quality was not measured."
    assert "top-1, %" not in rows({s.title: s for s in sweep_content(record).sections}["Points"])[0]
    assert sweep_content(record).headlines[2].value == "none"


def test_command_asks_for_the_same_grid(tmp_path: Path) -> None:
    write_record(tmp_path, sweep_record())

    markdown = report_sweep(tmp_path).markdown

    assert (
        "python -m exporter sweep vit_digits --r 0,2,4,6,8 --method tome,pitome --schedule constant "
        "--precision fp32 --target onnx --data DIR --max-drop 0.5 --out again"
    ) in markdown


def test_folder_and_its_file_give_the_same_report(tmp_path: Path) -> None:
    write_record(tmp_path, sweep_record())

    assert report_sweep(tmp_path) == report_sweep(tmp_path / "sweep.json")


def test_hostile_model_name_stays_text(tmp_path: Path) -> None:
    write_record(tmp_path, sweep_record(model="<script>alert(1)</script>"))

    report = report_sweep(tmp_path)

    assert "<script>alert" not in report.html
    assert "<script>alert" not in report.markdown.replace("'<script>alert(1)</script>'", "")


@pytest.mark.parametrize("content", [None, "{}", "not json", '{"schema_version": 2}'])
def test_folder_without_a_sound_record_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "sweep.json").write_text(content, encoding="utf-8")

    with pytest.raises(BundleError, match="sweep.json"):
        report_sweep(tmp_path)
