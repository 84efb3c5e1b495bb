"""The report in a browser: it renders, the slider works, nothing complains, nothing is asked of the network."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.visiting import Visit, visit

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

PHONE, DESKTOP = {"width": 360, "height": 740}, {"width": 1280, "height": 900}
KINDS = ("bundle", "sweep")


@pytest.fixture
def page(browser: "Browser", reports: dict[str, Path]) -> Iterator["Page"]:
    opened = visit(browser, viewport=PHONE).open(reports["bundle"])
    yield opened
    opened.context.close()


def shown(page: "Page") -> list[str]:
    """Return the captions of the steps that can be seen."""
    captions: list[str] = page.locator(".step:visible figcaption").all_inner_texts()
    return captions


def luminance(page: "Page", element: str, of: str) -> float:
    """Return the relative luminance of a colour, as WCAG 2 defines it."""
    colour = page.eval_on_selector(element, f"node => getComputedStyle(node).{of}")
    channels = [int(value) / 255 for value in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return sum(part * value for part, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(page: "Page", element: str, behind: str = "body") -> float:
    lighter, darker = sorted(
        (luminance(page, element, "color"), luminance(page, behind, "backgroundColor")), reverse=True
    )
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("viewport", [pytest.param(PHONE, id="phone"), pytest.param(DESKTOP, id="desktop")])
def test_page_opens_without_a_complaint_or_a_request(
    browser: "Browser", reports: dict[str, Path], kind: str, viewport: Any
) -> None:
    visitor: Visit = visit(browser, viewport=viewport)

    page = visitor.open(reports[kind])

    assert visitor.complaints == []
    assert [url for url in visitor.requests if not url.startswith("data:")] == [reports[kind].as_uri()]
    assert page.locator("h1").is_visible()
    assert all(chart.evaluate("node => node.clientHeight") > 50 for chart in page.locator("svg").all())
    page.context.close()


def test_a_script_that_is_not_the_pages_own_is_refused(
    browser: "Browser", reports: dict[str, Path], tmp_path: Path
) -> None:
    text = reports["bundle"].read_text(encoding="utf-8")
    changed = tmp_path / "changed.html"
    changed.write_text(
        text.replace("</main>", "<script>document.title = 'owned'</script></main>"), encoding="utf-8"
    )
    visitor = visit(browser)

    page = visitor.open(changed)

    assert page.title() != "owned"
    assert any("Content Security Policy" in complaint for complaint in visitor.complaints)
    page.context.close()


def test_slider_starts_at_the_last_step(page: "Page") -> None:
    assert shown(page) == ["after block 2: 7 tokens"]


def test_arrow_keys_step_through_the_blocks(page: "Page") -> None:
    page.locator("input[type=range]").focus()

    seen = []
    for _ in range(4):
        page.keyboard.press("ArrowLeft")
        seen += shown(page)
    page.keyboard.press("End")

    assert seen == [
        "after block 1: 9 tokens",
        "after block 0: 13 tokens",
        *["before block 0: 17 tokens"] * 2,  # there is nothing before the first
    ]
    assert shown(page) == ["after block 2: 7 tokens"]


def test_moving_the_slider_changes_picture_and_label(page: "Page") -> None:
    slider: Locator = page.locator("input[type=range]")
    before = page.locator(".step:visible img").get_attribute("src")

    slider.fill("1")  # sets the value and fires an input event, as a drag does

    assert shown(page) == ["after block 0: 13 tokens"]
    assert page.locator(".step:visible img").get_attribute("src") != before
    assert slider.get_attribute("aria-valuetext") == "after block 0: 13 tokens"


def test_picture_is_really_decoded_and_as_wide_as_the_column(page: "Page") -> None:
    image = page.locator(".step:visible img")

    assert image.evaluate("node => node.complete && node.naturalWidth") == 448
    assert image.evaluate("node => node.clientWidth") == 360 - 2 * 16


def test_wide_window_shows_the_original_beside_the_step(browser: "Browser", reports: dict[str, Path]) -> None:
    page = visit(browser, viewport=DESKTOP).open(reports["bundle"])

    assert shown(page) == ["before block 0: 17 tokens", "after block 2: 7 tokens"]
    page.context.close()


def test_without_javascript_the_last_step_shows_and_no_dead_slider(
    browser: "Browser", reports: dict[str, Path]
) -> None:
    page = visit(browser, java_script_enabled=False).open(reports["bundle"])

    assert shown(page) == ["after block 2: 7 tokens"]
    assert not page.locator("input[type=range]").is_visible()
    page.context.close()


@pytest.mark.parametrize("kind", KINDS)
def test_phone_scrolls_wide_tables_but_never_the_page(
    browser: "Browser", reports: dict[str, Path], kind: str
) -> None:
    page = visit(browser, viewport=PHONE).open(reports[kind])

    assert page.evaluate("document.documentElement.scrollWidth") == 360
    wide = page.locator(".scroll").evaluate_all(
        "boxes => boxes.filter(b => b.scrollWidth > b.clientWidth).length"
    )
    assert wide > 0
    page.context.close()


def test_phone_text_in_charts_can_be_read(page: "Page") -> None:
    heights = page.locator("svg text").evaluate_all(
        "texts => texts.map(t => t.getBoundingClientRect().height)"
    )

    assert min(heights) > 8


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_scheme_sets_the_background_and_keeps_contrast(
    browser: "Browser", reports: dict[str, Path], scheme: Any
) -> None:
    page = visit(browser, color_scheme=scheme).open(reports["bundle"])

    assert (luminance(page, "body", "backgroundColor") < 0.05) == (scheme == "dark")
    assert contrast(page, "body") > 7
    for element in (".subtitle", "p.bad", ".caption", ".headlines dt", ".headlines .good .value"):
        behind = ".headlines div" if element.startswith(".headlines") else "body"
        assert contrast(page, element, behind) > 4.5, element  # WCAG AA
    page.context.close()


def test_chart_colours_follow_the_scheme(browser: "Browser", reports: dict[str, Path]) -> None:
    pages = [visit(browser, color_scheme=scheme).open(reports["bundle"]) for scheme in ("light", "dark")]

    fills = [page.eval_on_selector("svg text", "node => getComputedStyle(node).fill") for page in pages]

    assert fills[0] != fills[1]
    for page in pages:
        page.context.close()


def test_print_is_light_and_shows_every_step(browser: "Browser", reports: dict[str, Path]) -> None:
    page = visit(browser, color_scheme="dark", viewport={"width": 794, "height": 1123}).open(
        reports["bundle"]
    )

    page.emulate_media(media="print")

    assert luminance(page, "body", "backgroundColor") > 0.9
    assert [caption.split(":")[0] for caption in shown(page)] == [
        *("before block 0", "after block 0", "after block 1", "after block 2")
    ]
    assert not page.locator("input[type=range]").is_visible()
    page.context.close()
