"""A headless Chromium, and reports on disk for it to open; skipped with a reason where there is none."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from exporter.bundle import GmacsRecord
from exporter.report import report_bundle, report_sweep
from exporter.sweep import write_record
from tests.support.report_bundle import BENCH, VALIDATION, Form, alike_groups, make_bundle, noise_image
from tests.support.report_sweep import sweep_record

if TYPE_CHECKING:
    from playwright.sync_api import Browser

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


def executable() -> str | None:
    """Return the browser that CHROMIUM names, or the first one on the path."""
    named = os.environ.get("CHROMIUM")
    return named or next((found for name in BROWSERS if (found := shutil.which(name))), None)


@pytest.fixture(scope="session")
def browser() -> Iterator["Browser"]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = executable()
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is on the path, and CHROMIUM is not set")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Paths of a full bundle's report and a sweep's, by name."""
    folder = tmp_path_factory.mktemp("reports")
    image, form = noise_image(32), Form()
    files = {"validation.json": VALIDATION, "bench.json": BENCH}
    bundle = make_bundle(
        folder / "bundle",
        image_HWC=image,
        files=files,
        merges=alike_groups(image, form),
        gmacs=GmacsRecord(dense=1.5, reduced=1.2, ratio=1.25, executed=0.9, blocks=(3e-3, 2e-3, 1e-3)),
        name="a-name-that-does-not-break-" + 3 * "a" * 40,
    )
    write_record(folder, sweep_record())
    texts = {
        "bundle": report_bundle(bundle).html,
        "sweep": report_sweep(folder).html,
    }
    for name, text in texts.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in texts}
