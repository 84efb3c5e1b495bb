"""A report as Markdown, for pull requests: the same words and tables, without charts and pictures.

In: a `ReportContent`. Out: the text of `report.md`. Everything from files is escaped, so
that it stays text in GitHub's dialect.
"""

import re
from collections.abc import Iterator

from exporter.report.content import (
    Commands,
    Facts,
    Headline,
    Listing,
    Paragraph,
    Part,
    Picture,
    ReportContent,
    Slideshow,
    Table,
)
from exporter.report.html import readable

_SPECIAL = re.compile(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])")
_LINE_START = re.compile(r"^(\d*)([-+=#.)][-+=#]*(?: |$))")


def render_markdown(content: ReportContent) -> str:
    """The document; the same content gives the same text."""
    lines = [f"# {escape(content.title)}", "", escape(content.subtitle), "", *_headlines(content.headlines)]
    for section in content.sections:
        lines += ["", f"## {escape(section.title)}", ""]
        for part in section.parts:
            lines += _part(part)
    return readable("\n".join(lines).rstrip() + "\n")


def escape(text: str) -> str:
    """A text of one line that Markdown shows as it is."""
    flat = " ".join(text.split())
    flat = flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    flat = _SPECIAL.sub(lambda found: f"\\{found.group()}", flat)
    return _LINE_START.sub(r"\1\\\2", flat)


def _headlines(headlines: tuple[Headline, ...]) -> list[str]:
    table = Table(
        caption="",
        headings=("", "figure", "to be read with"),
        rows=tuple((each.label, each.value, each.detail) for each in headlines),
        texts=frozenset({0, 1, 2}),
    )
    return list(_part(table))


def _part(part: Part) -> Iterator[str]:
    match part:
        case Paragraph(text=text, tone=tone):
            yield from (f"**{escape(text)}**" if tone == "bad" else escape(text), "")
        case Table():
            yield from _table(part)
        case Facts(rows=rows):
            yield from (*(f"- {escape(name)}: {escape(value)}" for name, value in rows), "")
        case Listing(items=items):
            yield from (*(f"- {escape(item)}" for item in items), "")
        case Commands(lines=lines):
            yield from ("```", *(" ".join(line.split()) for line in lines), "```", "")
        case Picture(label=label):
            yield from (f"Picture, in the HTML report: {escape(label)}.", "")
        case Slideshow(steps=steps):
            yield from (
                f"Pictures, in the HTML report: {len(steps)}, the last one {escape(steps[-1].label)}.",
                "",
            )


def _table(table: Table) -> Iterator[str]:
    if table.caption:
        yield from (escape(table.caption) + ":", "")
    rules = ("---" if place in table.texts else "---:" for place in range(len(table.headings)))
    yield from (_row(table.headings), f"|{'|'.join(rules)}|", *map(_row, table.rows), "")


def _row(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(map(escape, cells))} |"
