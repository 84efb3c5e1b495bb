"""The content of a report, independent of its looks: texts, tables, charts and pictures in order.

`bundle_content` and `sweep_content` make a `ReportContent` out of files; `html` and `markdown` only render one. Texts
here are plain: the renderers escape them.
"""

from dataclasses import dataclass, field
from typing import Literal

Tone = Literal["plain", "good", "bad", "absent"]
"""What a figure means to the reader; `absent` is for what was not run."""


@dataclass(frozen=True, kw_only=True)
class Headline:
    """A figure of the summary: what it is, the figure, and what it has to be read with."""

    label: str
    value: str
    detail: str = ""
    tone: Tone = "plain"


@dataclass(frozen=True, kw_only=True)
class Paragraph:
    """A sentence or two; `absent` for what was not run, `bad` for a warning."""

    text: str
    tone: Tone = "plain"


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of texts under headings.

    Attributes:
        caption: what the table shows.
        headings: of the columns.
        rows: as long as the headings.
        texts: positions of the columns that hold words, which are set flush left; the others hold figures.
    """

    caption: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    texts: frozenset[int] = frozenset({0})


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Names and their values, one below the other."""

    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Remarks, one below the other."""

    items: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Commands:
    """Lines to paste into a shell."""

    lines: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Series:
    """A named line or set of points: (x, y), and for each point a lower and upper bound, if there are any."""

    name: str
    points: tuple[tuple[float, float], ...]
    bounds: tuple[tuple[float, float] | None, ...] = ()
    marked: tuple[bool, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Chart:
    """What is shown, and the labels of its axes with their units; an axis may have none."""

    title: str
    x_label: str
    y_label: str = ""


@dataclass(frozen=True, kw_only=True)
class TokenChart(Chart):
    """Tokens that enter each block: what is left, and what merging has saved so far."""

    kept: tuple[float, ...]
    dense: float


@dataclass(frozen=True, kw_only=True)
class LineChart(Chart):
    """Lines over a common axis of whole numbers; `from_zero`: whether the y axis starts at zero."""

    series: tuple[Series, ...]
    from_zero: bool = True


@dataclass(frozen=True, kw_only=True)
class IntervalChart(Chart):
    """Estimates with their intervals, against a value that means no difference."""

    rows: tuple[tuple[str, float, tuple[float, float]], ...]
    neutral: float


@dataclass(frozen=True, kw_only=True)
class ParetoChart(Chart):
    """Points of two qualities, both better when larger; marked points are the front."""

    series: tuple[Series, ...]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An encoded PNG, its size in pixels, and what it shows."""

    png: bytes = field(repr=False)
    size: tuple[int, int]
    label: str


@dataclass(frozen=True, kw_only=True)
class Slideshow:
    """Pictures of the same thing, one after the other, to be gone through with a slider."""

    label: str
    steps: tuple[Picture, ...]


Part = Paragraph | Table | Facts | Listing | Commands | Picture | Slideshow | Chart


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading and what stands under it."""

    title: str
    parts: tuple[Part, ...]


def absent(text: str) -> Paragraph:
    """A sentence on what was not run."""
    return Paragraph(text=text, tone="absent")


def section(title: str, *parts: Part) -> Section:
    """A section of these parts."""
    return Section(title=title, parts=parts)


@dataclass(frozen=True, kw_only=True)
class ReportContent:
    """A whole report: title, what it is about, the figures to remember, and the sections."""

    title: str
    subtitle: str
    headlines: tuple[Headline, ...]
    sections: tuple[Section, ...]
