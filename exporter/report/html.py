"""A report as one HTML file: nothing is fetched, nothing leaves it, and every text in it is escaped.

In: a `ReportContent`. Out: the text of `report.html`. The page's own content security
policy forbids all requests, and all scripts but the one that moves the slider, by its hash.
"""

import base64
import hashlib
import re
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from exporter.report.content import Chart, Part, ReportContent
from exporter.report.plots import draw, legend

_SMALL_PIXELS = 112  # a smaller image is shown with its pixels as squares
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def render_html(content: ReportContent) -> str:
    """The page; the same content gives the same text."""
    environment = _environment()
    script = environment.get_template("slider.js.j2").render()
    page = environment.get_template("report.html.j2").render(
        content=content,
        style=Markup(environment.get_template("page.css.j2").render()),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
        charts=_charts(content),
    )
    return readable(page)


def readable(text: str) -> str:
    """A text without control characters and lone surrogates, which no file can hold or show."""
    return _UNPRINTABLE.sub("\ufffd", text)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("exporter.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "kind": _kind,
        "data_uri": lambda picture: f"data:image/png;base64,{base64.b64encode(picture.png).decode('ascii')}",
        "small": lambda picture: max(picture.size) < _SMALL_PIXELS,
        "legend": legend,
        "identity": id,
    }
    return environment


def _charts(content: ReportContent) -> dict[int, Markup]:
    """SVG of every chart, by the chart's identity."""
    charts = [part for section in content.sections for part in section.parts if isinstance(part, Chart)]
    return {id(chart): Markup(draw(chart, f"chart-{place}")) for place, chart in enumerate(charts)}


def _kind(part: Part) -> str:
    return "Chart" if isinstance(part, Chart) else type(part).__name__
