"""`report`: a page in a bundle, of its sample or of the user's image."""

import json
import shutil
from pathlib import Path

import click
import numpy as np
import pytest
from PIL import Image

from exporter.bundle import load_bundle
from tests.cli.commands import TINY, Build, refused, run, tree


@pytest.fixture
def copy(build: Build, tmp_path: Path) -> Path:
    """A reduced bundle that a test may change."""
    folder = tmp_path / "copy"
    shutil.copytree(build(*TINY, "--r", "2"), folder)
    return folder


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """One half black and one half white, unlike the sample."""
    pixels = np.zeros((80, 80, 3), dtype=np.uint8)
    pixels[:, 40:] = 255
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def page(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


def test_report_is_written_into_a_bundle_that_still_verifies(copy: Path) -> None:
    outcome = run("report", copy)

    assert outcome.status == 0, outcome.err
    assert outcome.out.splitlines() == [str(copy / "report.html"), str(copy / "report.md")]
    assert {"report.html", "report.md"} <= load_bundle(copy).manifest.files.keys()
    assert "tome" in (copy / "report.md").read_text(encoding="utf-8")
    assert "<html" in page(copy)


def test_report_again_replaces_the_first_and_json_names_the_files(copy: Path) -> None:
    run("report", copy, "--quiet")
    first = tree(copy)

    outcome = run("report", copy, "--json")

    assert json.loads(outcome.out) == {"html": str(copy / "report.html"), "markdown": str(copy / "report.md")}
    assert (outcome.status, outcome.err) == (0, "")
    assert tree(copy).keys() == first.keys()
    load_bundle(copy)


def test_own_image_changes_the_pictures_alone(copy: Path, photo: Path) -> None:
    run("report", copy, "--quiet")
    of_sample = page(copy)
    text, merges = ((copy / name).read_bytes() for name in ("report.md", "merges.npz"))

    outcome = run("report", copy, "--image", photo, "--quiet")

    assert (outcome.status, outcome.err) == (0, "")
    assert page(copy) != of_sample
    assert (copy / "report.md").read_bytes() == text
    assert (copy / "merges.npz").read_bytes() == merges
    load_bundle(copy)


def test_open_shows_the_page(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr(click, "launch", shown.append)

    run("report", copy, "--open", "--quiet")

    assert shown == [(copy / "report.html").as_uri()]


@pytest.mark.parametrize(
    "content",
    [b"", b"not an image", b"\x89PNG\r\n\x1a\n" + bytes(40), None],
    ids=["", "text", "header", "cut"],
)
def test_image_that_cannot_be_read(copy: Path, photo: Path, content: bytes | None) -> None:
    photo.write_bytes(photo.read_bytes()[:-40] if content is None else content)
    before = tree(copy)

    assert "photo.png" in refused(2, "report", copy, "--image", photo)
    assert "nowhere.png" in refused(2, "report", copy, "--image", "nowhere.png")
    assert tree(copy) == before


def test_image_for_a_bundle_that_merges_nothing(build: Build, photo: Path) -> None:
    assert "merges tokens" in refused(2, "report", build(*TINY, "--r", "0"), "--image", photo)


@pytest.mark.parametrize("name", ["nothing", "folder", "file"])
def test_what_is_neither_bundle_nor_sweep(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()

    assert name in refused(8, "report", tmp_path / name)


def test_damaged_bundle(copy: Path) -> None:
    (copy / "sample.npz").write_bytes(b"damaged")

    assert "sample.npz" in refused(8, "report", copy)


def test_damaged_sweep(tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text("{}", encoding="utf-8")

    assert "sweep.json" in refused(8, "report", tmp_path)
