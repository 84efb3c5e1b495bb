"""A bundle's report as Markdown, taken apart."""

import re
from dataclasses import dataclass

from exporter.bundle import Bundle
from exporter.report.bundle_content import bundle_content
from exporter.report.markdown import render_markdown
from exporter.report.report import evidence


@dataclass(frozen=True, kw_only=True)
class Read:
    """A Markdown report, taken apart by hand: paragraphs and tables under each heading."""

    text: str
    sections: dict[str, str]

    def table(self, section: str, caption: str) -> list[dict[str, str]]:
        lines = self.sections[section].split(f"{caption}", 1)[1].splitlines()[1:]
        table = []
        for line in lines:
            if line.startswith("|"):
                table.append([cell.strip() for cell in line.strip("|").split(" | ")])
            elif table:
                break
        headings = table[0]
        assert all(len(row) == len(headings) for row in table if row != table[1])
        return [dict(zip(headings, row, strict=True)) for row in table[2:]]


def read(bundle: Bundle) -> Read:
    return taken_apart(render_markdown(bundle_content(evidence(bundle))))


def taken_apart(text: str) -> Read:
    parts = re.split(r"^## (.*)$", text, flags=re.MULTILINE)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    return Read(text=text, sections={"": parts[0], **sections})
