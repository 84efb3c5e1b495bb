"""Charts: points where the numbers say, colours and fonts of the page, the same bytes every time."""

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from exporter.report import plots
from exporter.report.content import Chart, IntervalChart, LineChart, ParetoChart, Series, TokenChart
from exporter.report.plots import draw, legend

TEMPLATES = Path(plots.__file__).parent / "templates"

TOKENS = TokenChart(title="tokens", x_label="block", y_label="tokens", kept=(17, 13, 9), dense=17)
LINES = LineChart(
    title="quality",
    x_label="r",
    y_label="top-1",
    series=(
        Series(
            name="one", points=((0, 98.0), (4, 97.0), (6, 92.0)), bounds=((97.0, 99.0), None, (90.0, 93.0))
        ),
        Series(name="two", points=((0, 98.0), (4, 96.0)), bounds=((97.0, 99.0), None)),
    ),
    from_zero=False,
)
INTERVALS = IntervalChart(
    title="ratios", x_label="times", rows=(("a", 1.5, (1.25, 2.0)), ("b", 0.75, (0.5, 1.0))), neutral=1.0
)
PARETO = ParetoChart(
    title="front",
    x_label="images/s",
    y_label="top-1",
    series=(Series(name="m", points=((100, 98.0), (200, 95.0), (150, 90.0)), marked=(True, True, False)),),
)
CHARTS = [pytest.param(chart, id=type(chart).__name__) for chart in (TOKENS, LINES, INTERVALS, PARETO)]


def parsed(chart: Chart) -> ElementTree.Element:
    return ElementTree.fromstring(draw(chart, "key"))


def marks(chart: Chart, fill: str = "var(--series-0)") -> np.ndarray:
    """Positions (n, 2) of the markers of a colour, y upwards."""
    places = [
        (float(use.get("x", "0")), -float(use.get("y", "0")))
        for use in parsed(chart).iter("use")
        if f"fill: {fill}" in use.get("style", "") and use.get("href", "").startswith("#key-m")
    ]
    return np.array(places)


def paths(chart: Chart, style: str) -> list[np.ndarray]:
    """Corners (n, 2) of every path of a style, y upwards."""
    found = [path for path in parsed(chart).iter("path") if style in path.get("style", "")]
    return [
        np.array(re.findall(r"[ML] (\S+) (\S+)", path.get("d", "")), dtype=float) * (1, -1) for path in found
    ]


def assert_proportional(places: np.ndarray, values: list[float]) -> None:
    """Distances on paper are to each other as distances of the values."""
    paper, numbers = np.diff(places), np.diff(np.array(values))
    np.testing.assert_allclose(paper / paper[0], numbers / numbers[0], rtol=1e-3)
    assert np.sign(paper[0]) == np.sign(numbers[0])


@pytest.mark.parametrize("chart", CHARTS)
def test_same_chart_gives_the_same_bytes_and_another_key_other_ids(chart: Chart) -> None:
    one, again, other = draw(chart, "a"), draw(chart, "a"), draw(chart, "b")

    assert one == again
    assert not set(re.findall(r' id="([^"]+)"', one)) & set(re.findall(r' id="([^"]+)"', other))


@pytest.mark.parametrize("chart", CHARTS)
def test_every_colour_is_the_pages(chart: Chart) -> None:
    svg = draw(chart, "key")

    assert re.findall(r"#[0-9a-fA-F]{6}\b", svg) == []
    assert set(re.findall(r"(?:fill|stroke): ([^;\"]+)", svg)) <= {
        "none",
        *(f"var(--{name})" for name in ("text", "muted", "line", "page", "weak", "series-0", "series-1")),
    }


@pytest.mark.parametrize("chart", CHARTS)
def test_texts_are_texts_in_the_pages_font(chart: Chart) -> None:
    root = parsed(chart)

    assert chart.x_label in [text.text for text in root.iter("text")]
    assert "font-family" not in ElementTree.tostring(root, encoding="unicode")
    assert (root.get("role"), root.get("aria-label")) == ("img", chart.title)


@pytest.mark.parametrize("chart", CHARTS)
def test_chart_leaves_no_namespace_date_or_style_for_the_whole_page(chart: Chart) -> None:
    svg = draw(chart, "key")

    assert not re.search(r"http|xmlns|<style|<metadata|<!--|\?xml|20\d\d-", svg)


def test_line_goes_through_its_points() -> None:
    places = marks(LINES)

    assert len(places) == 3
    assert_proportional(places[:, 0], [0, 4, 6])
    assert_proportional(places[:, 1], [98, 97, 92])


def test_bounds_are_bars_around_their_points() -> None:
    bars = paths(LINES, "stroke: var(--series-0); stroke-opacity: 0.6")

    assert len(bars) == 2
    ends = np.concatenate([*(bar[:, 1] for bar in bars), marks(LINES)[:, 1]])
    assert_proportional(ends, [97, 99, 90, 93, 98, 97, 92])


def test_series_with_bars_stand_beside_each_other() -> None:
    one, two = marks(LINES), marks(LINES, "var(--series-1)")

    np.testing.assert_allclose(two[:2, 0] - one[:2, 0], 0.06 * 72, rtol=1e-3)


def test_intervals_lie_where_their_numbers_are() -> None:
    (first, second) = paths(INTERVALS, "stroke: var(--series-0); stroke-width: 3")
    (neutral,) = paths(INTERVALS, "stroke-dasharray")
    places = marks(INTERVALS)

    along = np.concatenate([first[:, 0], second[:, 0], neutral[:1, 0], places[:, 0]])
    assert_proportional(along, [1.25, 2.0, 0.5, 1.0, 1.0, 1.5, 0.75])
    assert places[0, 1] > places[1, 1]  # in the order given, from the top


def test_bars_are_as_high_as_there_are_tokens() -> None:
    heights = [np.ptp(bar[:, 1]) for bar in paths(TOKENS, "fill: var(--series-0)")]
    saved = [np.ptp(bar[:, 1]) for bar in paths(TOKENS, "fill: var(--weak)")]

    np.testing.assert_allclose(np.array(heights) / heights[0], [1, 13 / 17, 9 / 17], rtol=1e-3)
    np.testing.assert_allclose(np.array(saved) / heights[0], [0, 4 / 17, 8 / 17], atol=1e-3)


def test_points_on_the_front_are_filled_and_joined_in_steps() -> None:
    (front,) = paths(PARETO, "stroke-dasharray")
    filled = marks(PARETO)

    assert len(filled) == 2
    assert_proportional(filled[:, 0], [100, 200])
    # From the slow, good point straight down to the quality of the fast one, then along to it.
    expected = np.array([filled[0], (filled[0, 0], filled[1, 1]), filled[1]])
    np.testing.assert_allclose(front, expected, atol=1e-3)


def test_one_point_and_one_value_can_be_drawn() -> None:
    lone = Series(name="x", points=((3, 1.0),))

    for chart in (
        LineChart(title="t", x_label="x", y_label="y", series=(lone,)),
        IntervalChart(title="t", x_label="x", rows=(("a", 0.0, (0.0, 0.0)),), neutral=0.0),
        ParetoChart(title="t", x_label="x", y_label="y", series=(lone,)),
    ):
        assert "nan" not in draw(chart, "k")


def test_long_label_is_cut_with_a_sign() -> None:
    chart = IntervalChart(title="t", x_label="x", rows=(("n" * 80, 1.0, (0.5, 2.0)),), neutral=1.0)

    (label,) = [text.text for text in parsed(chart).iter("text") if text.text and text.text.startswith("nn")]

    assert label == "n" * 45 + "\u2026"


def test_legend_names_every_series_in_its_colour() -> None:
    assert legend(LINES) == (("var(--series-0)", "one"), ("var(--series-1)", "two"))
    assert legend(INTERVALS) == ()
    assert legend(PARETO) == ()  # one series needs no name


def test_a_sweep_of_all_methods_has_a_colour_for_each_that_the_page_defines() -> None:
    series = tuple(Series(name=f"method {place}", points=((place, 1.0),)) for place in range(12))
    colours = [colour for colour, _ in legend(LineChart(title="", x_label="", y_label="", series=series))]

    page = (TEMPLATES / "page.css.j2").read_text(encoding="utf-8")
    assert len(set(colours)) == 12
    assert all(page.count(f"{colour.removeprefix('var(').removesuffix(')')}:") == 2 for colour in colours)
