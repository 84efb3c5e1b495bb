"""Charts as inline SVG that takes its colours from the page.

In: a chart of `content`. Out: SVG text for `html`. Drawn by matplotlib, the same bytes
every time. Colours are drawn as sentinels and then replaced with the page's CSS variables, and texts stay texts, so
that a chart follows the reader's light or dark scheme and font.
"""

import io
import re
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Any

from exporter.report.content import Chart, IntervalChart, LineChart, ParetoChart, Series, TokenChart
from exporter.report.matplotlib_import import import_matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Sentinel colours: what matplotlib draws, and the CSS variable that takes its place.
_TEXT, _MUTED, _GRID, _PAGE, _WEAK = "#010101", "#010102", "#010103", "#010104", "#010105"
SERIES_COLOURS = tuple(f"#0101{place:02x}" for place in range(0x11, 0x1D))
_VARIABLES = {
    _TEXT: "--text",
    _MUTED: "--muted",
    _GRID: "--line",
    _PAGE: "--page",
    _WEAK: "--weak",
    **{colour: f"--series-{place}" for place, colour in enumerate(SERIES_COLOURS)},
}
_MARKERS = ("o", "s", "^", "D", "v", "P")

_WIDTH_INCHES = 5.6
_LONGEST_LABEL = 46
_BARS_APART = 0.06  # inches

_SETTINGS = {
    "font.family": "sans-serif",
    "font.size": 11,
    "svg.fonttype": "none",
    "text.parse_math": False,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.7,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.color": _GRID,
    "ytick.color": _GRID,
    "xtick.labelcolor": _MUTED,
    "ytick.labelcolor": _MUTED,
    "text.color": _TEXT,
    "lines.linewidth": 2,
}


def draw(chart: Chart, key: str) -> str:
    """A chart as an `<svg>` element.

    Args:
        chart: what to draw.
        key: makes the ids of this element different from those of other charts on the page.
    """
    with _figure(chart, key) as figure:
        axes = figure.add_subplot()
        match chart:
            case TokenChart():
                _draw_tokens(axes, chart)
            case LineChart():
                _draw_lines(axes, chart)
            case IntervalChart():
                _draw_intervals(axes, chart)
            case ParetoChart():
                _draw_pareto(axes, chart)
        axes.set_xlabel(chart.x_label)
        axes.set_ylabel(chart.y_label)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", transparent=True, metadata=_NO_METADATA)
    return _inline(stream.getvalue(), chart, key)


def legend(chart: Chart) -> tuple[tuple[str, str], ...]:
    """(CSS colour, name) of everything in a chart that needs a name; the page writes the legend."""
    match chart:
        case TokenChart():
            return (("var(--series-0)", "with merging"), ("var(--weak)", "saved by merging"))
        case LineChart(series=series) | ParetoChart(series=series) if len(series) > 1:
            return tuple(
                (f"var({_VARIABLES[_colour(place)]})", each.name) for place, each in enumerate(series)
            )
    return ()


_UNWANTED = (
    r' id="(?:figure|axes|patch|line2d|text|matplotlib\.axis|xtick|ytick|LineCollection)_\d+"',
    r"<!--.*?-->",
    r"<metadata>.*?</metadata>",
    r'<style type="text/css">.*?</style>',  # it would apply to the whole page
    r"font-family: [^;]*; ",
    r' transform="rotate\(-0 [^)]*\)"',
)
"""Parts of matplotlib's SVG, as patterns: ids that nothing refers to, and what is the page's to say."""

_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


@contextmanager
def _figure(chart: Chart, key: str) -> Iterator["Figure"]:
    import_matplotlib()
    from matplotlib import style
    from matplotlib.figure import Figure

    height = 0.9 + 0.52 * len(chart.rows) if isinstance(chart, IntervalChart) else 2.9
    settings: dict[str, Any] = {**_SETTINGS, "svg.hashsalt": key}
    own_only = style.context([settings], after_reset=True)  # nothing of a user's own settings file
    with own_only, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # glyphs that the measuring font lacks; the browser has its own
        yield Figure(figsize=(_WIDTH_INCHES, height), layout="constrained")


def _draw_tokens(axes: "Axes", chart: TokenChart) -> None:
    places = range(len(chart.kept))
    saved = [chart.dense - kept for kept in chart.kept]
    axes.bar(places, chart.kept, width=0.78, color=SERIES_COLOURS[0])
    axes.bar(places, saved, width=0.78, bottom=chart.kept, color=_WEAK)
    _count_along(axes)
    axes.set_xlim(-0.6, len(chart.kept) - 0.4)
    axes.grid(axis="y")


def _draw_lines(axes: "Axes", chart: LineChart) -> None:
    for place, series in enumerate(chart.series):
        _draw_series(axes, series, place, aside=place - (len(chart.series) - 1) / 2)
    _count_along(axes)
    if chart.from_zero:
        axes.set_ylim(bottom=0)
    axes.grid(axis="y")


def _draw_intervals(axes: "Axes", chart: IntervalChart) -> None:
    axes.axvline(chart.neutral, color=_MUTED, linewidth=1, linestyle=(0, (4, 3)))
    ends = [chart.neutral, *(end for _, _, interval in chart.rows for end in interval)]
    margin = 0.06 * ((max(ends) - min(ends)) or 1)
    axes.set_xlim(min(ends) - margin, max(ends) + margin)
    for place, (name, value, (low, high)) in enumerate(chart.rows):
        axes.plot([low, high], [-place, -place], color=SERIES_COLOURS[0], linewidth=3, solid_capstyle="round")
        axes.plot([value], [-place], "o", color=SERIES_COLOURS[0], markeredgecolor=_PAGE, markersize=8)
        axes.annotate(
            _label(name),
            (0, -place),
            xycoords=("axes fraction", "data"),
            xytext=(0, 7),
            textcoords="offset points",
        )
    axes.set_ylim(-len(chart.rows) + 0.6, 0.75)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")


def _draw_pareto(axes: "Axes", chart: ParetoChart) -> None:
    front = sorted(point for series in chart.series for point, on in _marked(series) if on)
    if front:
        axes.step(*zip(*front, strict=True), where="pre", color=_MUTED, linewidth=1.2, linestyle=(0, (4, 3)))
    for place, series in enumerate(chart.series):
        for point, on in _marked(series):
            fill = _colour(place) if on else "none"
            axes.plot(
                *point,
                _marker(place),
                color=_colour(place),
                markerfacecolor=fill,
                markersize=8,
                markeredgewidth=1.5,
            )
    axes.margins(0.08)
    axes.grid()


def _draw_series(axes: "Axes", series: Series, place: int, aside: float) -> None:
    """A line; where points have bounds, moved aside by `steps`, since bars would hide each other."""
    from matplotlib.transforms import ScaledTranslation

    colour = _colour(place)
    step = _BARS_APART if any(series.bounds) else 0.0
    scale = axes.get_figure(root=True).dpi_scale_trans  # type: ignore[union-attr]
    moved = axes.transData + ScaledTranslation(aside * step, 0, scale)
    for (x, _), bounds in zip(series.points, series.bounds, strict=False):
        if bounds is not None:
            axes.plot([x, x], bounds, color=colour, linewidth=1.4, alpha=0.6, transform=moved)
    xs, ys = [x for x, _ in series.points], [y for _, y in series.points]
    style: dict[str, Any] = {"marker": _marker(place), "color": colour, "markeredgecolor": _PAGE}
    axes.plot(xs, ys, "-", markersize=5.5, transform=moved, **style)
    ends = [
        (x, end) for (x, _), bounds in zip(series.points, series.bounds, strict=False) for end in bounds or ()
    ]
    axes.update_datalim([*series.points, *ends])  # which moved lines do not do
    axes.autoscale_view()


def _marked(series: Series) -> list[tuple[tuple[float, float], bool]]:
    return list(zip(series.points, series.marked or (False,) * len(series.points), strict=True))


def _colour(place: int) -> str:
    return SERIES_COLOURS[place % len(SERIES_COLOURS)]


def _marker(place: int) -> str:
    return _MARKERS[place % len(_MARKERS)]


def _count_along(axes: "Axes") -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=12, integer=True, min_n_ticks=1))


def _label(text: str) -> str:
    """A text from a file that fits into a chart; the table beside it has the whole."""
    clean = "".join("\ufffd" if unicodedata.category(letter) in ("Cc", "Cs") else letter for letter in text)
    return clean if len(clean) <= _LONGEST_LABEL else f"{clean[: _LONGEST_LABEL - 1]}\u2026"


def _inline(svg: str, chart: Chart, key: str) -> str:
    """The `<svg>` element without prologue and namespaces, its colours and ids made the page's."""
    svg = svg[svg.index("<svg") :]
    start = svg.index(">") + 1
    width, height = re.findall(r'viewBox="0 0 (\S+) (\S+)"', svg[:start])[0]
    svg = svg[start:]
    for unwanted in _UNWANTED:
        svg = re.sub(unwanted, "", svg, flags=re.DOTALL)
    svg = re.sub(r"\s*\n\s*", " ", svg)
    svg = (
        svg.replace('id="', f'id="{key}-')
        .replace("url(#", f"url(#{key}-")
        .replace('xlink:href="#', f'href="#{key}-')
    )
    for sentinel, variable in _VARIABLES.items():
        svg = svg.replace(sentinel, f"var({variable})")
    return f'<svg role="img" aria-label="{escape(chart.title)}" viewBox="0 0 {width} {height}">{svg}'
