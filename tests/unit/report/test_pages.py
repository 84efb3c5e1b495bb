"""Rendering: HTML that is balanced, closed to the network and escaped; Markdown that stays text."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from exporter.report import Report, report_bundle
from exporter.report.content import (
    Commands,
    Facts,
    Headline,
    Listing,
    Paragraph,
    ReportContent,
    Section,
    Table,
)
from exporter.report.html import render_html
from exporter.report.markdown import escape, render_markdown
from tests.support.report_bundle import BENCH, VALIDATION, Form, alike_groups, make_bundle, noise_image

HOSTILE = "<script>alert(1)</script>"
VOID = {"meta", "link", "input", "img", "br", "hr"}
ADDRESS_KEYS = {"src", "href", "xlink:href", "srcset", "action", "data", "poster", "background"}


class Page(HTMLParser):
    """Every tag of a page, whether they balance, its texts and the addresses that it refers to."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.addresses: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.addresses += [value or "" for key, value in attrs if key in ADDRESS_KEYS]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.addresses += [value or "" for key, value in attrs if key in ADDRESS_KEYS]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    bundle = make_bundle(
        tmp_path_factory.mktemp("pages") / "bundle",
        files={"validation.json": VALIDATION, "bench.json": BENCH},
        merges=alike_groups(noise_image(32), Form()),
        notes=(HOSTILE, "\x00 control and \ud800 surrogate"),
    )
    return report_bundle(bundle)


@pytest.fixture(scope="module")
def page(report: Report) -> Page:
    return Page(report.html)


def content(
    title: str = "t", parts: tuple[Paragraph | Table | Facts | Listing | Commands, ...] = ()
) -> ReportContent:
    return ReportContent(
        title=title,
        subtitle=title,
        headlines=(Headline(label=title, value=title, detail=title),),
        sections=(Section(title=title, parts=parts),),
    )


def test_every_tag_that_opens_closes(page: Page) -> None:
    assert page.open == []
    assert len(page.named("section")) == 9
    assert len(page.named("svg")) == 5  # tokens, time, difference, error, ratios


def test_ids_are_unique_and_references_lead_to_them(report: Report, page: Page) -> None:
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    used = re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"|aria-labelledby="([^"]+)"', report.html)

    assert len(ids) == len(set(ids))
    assert {name for names in used for name in names if name} <= set(ids)


def test_nothing_is_fetched(report: Report, page: Page) -> None:
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert re.search(r"https?:|//[a-z]|@import|url\((?!#)", re.sub(r"base64,[^\"]+", "", report.html)) is None
    assert not {"iframe", "object", "embed", "form", "base"} & {tag for tag, _ in page.tags}


def test_policy_forbids_everything_but_the_pages_own_script_styles_and_pictures(page: Page) -> None:
    (policy,) = [attrs for attrs in page.named("meta") if "http-equiv" in attrs]
    rules = dict(rule.strip().split(" ", 1) for rule in str(policy["content"]).split(";"))
    script = "".join(page.texts["script"])

    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert rules == {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": "'unsafe-inline'",
        "script-src": f"'sha256-{digest}'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert len(page.named("script")) == 1


def test_style_and_script_are_small(page: Page) -> None:
    assert len("".join(page.texts["style"]).encode()) < 6000
    assert len("".join(page.texts["script"]).encode()) < 1500


def test_last_step_is_what_shows_without_javascript(page: Page) -> None:
    steps = [attrs for attrs in page.named("figure") if attrs.get("class") == "step"]

    assert [("hidden" in attrs) for attrs in steps] == [True, True, True, False]
    assert "hidden" in next(attrs for attrs in page.named("div") if attrs.get("class") == "control")


def test_slider_counts_the_steps(page: Page) -> None:
    (slider,) = page.named("input")

    assert (slider["type"], slider["min"], slider["max"], slider["value"]) == ("range", "0", "3", "3")
    assert slider["aria-label"]


def test_texts_from_files_are_escaped_wherever_they_stand(report: Report, page: Page) -> None:
    assert HOSTILE not in report.html
    assert HOSTILE in page.texts["li"]
    assert HOSTILE not in report.markdown


def test_control_characters_and_lone_surrogates_become_a_sign(report: Report) -> None:
    for text in (report.html, report.markdown):
        text.encode("utf-8")
        assert "\x00" not in text
        assert "\ufffd control and \ufffd surrogate" in text


@pytest.mark.parametrize("hostile", [HOSTILE, '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }}", "</style><b>"])
def test_hostile_text_stays_text_in_every_part(hostile: str) -> None:
    parts = (
        Paragraph(text=hostile),
        Table(caption=hostile, headings=(hostile,), rows=((hostile,),)),
        Facts(rows=((hostile, hostile),)),
        Listing(items=(hostile,)),
        Commands(lines=(hostile,)),
    )

    page = Page(render_html(content(hostile, parts)))

    assert page.open == []
    assert not {"img", "b"} & {tag for tag, _ in page.tags}
    assert len(page.named("script")) == 1
    for tag in ("title", "h1", "h2", "p", "th", "td", "dt", "dd", "li", "code"):
        assert hostile in page.texts[tag]


def test_hostile_names_stay_text_in_charts(tmp_path: Path) -> None:
    names = {"a</svg>" + HOSTILE: 1.5, r"$\frac{1}$": 2.5, "_under": 3.5, "\x1b[31m": 4.5}
    ratios = [{"name": name, "batch": 1, "value": value, "interval": [1, 9]} for name, value in names.items()]

    html = report_bundle(make_bundle(tmp_path / "b", files={"bench.json": {**BENCH, "ratios": ratios}})).html

    page = Page(html)
    drawn = page.texts["text"]
    assert page.open == []
    assert len(page.named("script")) == 1
    assert r"$\frac{1}$, batch 1" in drawn
    assert "_under, batch 1" in drawn
    assert "\ufffd[31m, batch 1" in drawn


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("vit_digits-tome-r4", "vit_digits-tome-r4", id="names stay as they are"),
        pytest.param("-0.44 (-1.54 to +0.66)", "-0.44 (-1.54 to +0.66)", id="numbers too"),
        pytest.param("a | b", r"a \| b", id="pipe"),
        pytest.param(
            "*b* _i_ `c` [l](u) ~s~", r"\*b\* \_i\_ \`c\` \[l\](u) \~s\~", id="emphasis, code and links"
        ),
        pytest.param("<b>&amp;", "&lt;b&gt;&amp;amp;", id="html"),
        pytest.param("# title", r"\# title", id="heading"),
        pytest.param("- item", r"\- item", id="item"),
        pytest.param("1. item", r"1\. item", id="numbered item"),
        pytest.param("1.5 times", "1.5 times", id="a number is no item"),
        pytest.param("---", r"\---", id="rule"),
        pytest.param("a\n\n# b\tc", "a # b c", id="line breaks"),
        pytest.param("c:\\d", r"c:\\d", id="backslash"),
    ],
)
def test_markdown_escapes_what_would_not_stay_text(text: str, expected: str) -> None:
    assert escape(text) == expected


def test_markdown_tables_have_as_many_cells_in_every_row(report: Report) -> None:
    groups = re.findall(r"(?:^\|.*\n)+", report.markdown, flags=re.MULTILINE)

    # Summary, blocks, 2 of parity, 3 of accuracy, retrieval, 2 of fidelity, 3 of speed, artifacts.
    assert len(groups) == 14
    for group in groups:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in group.splitlines()}) == 1
        assert re.fullmatch(r"\|(-{3}:?\|)+", group.splitlines()[1])


def test_markdown_command_stays_on_one_line() -> None:
    text = render_markdown(content(parts=(Commands(lines=("python -m x 'a\n```\nb'",)),)))

    assert "```\npython -m x 'a ``` b'\n```" in text
