"""What the report of a user's image is drawn from: the matches of the eager program."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import exporter
from exporter.errors import UsageError
from exporter.models import ModelRequest, Preprocess
from exporter.pipeline.observe import silent
from exporter.pipeline.report import _cropped, _groups, _open, _write
from exporter.recipe import Recipe
from exporter.report import Report
from exporter.schedule import ScheduleRequest


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> exporter.Bundle:
    model = ModelRequest(model="timm:test_vit", weights="random", image_size=64, options={"depth": 3})
    recipe = Recipe(model=model, schedule=ScheduleRequest(r=2))
    return exporter.export(recipe, tmp_path_factory.mktemp("bundles") / "bundle")


def photo(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_every_block_leaves_as_many_regions_as_tokens_and_another_image_merges_elsewhere(
    bundle: exporter.Bundle,
) -> None:
    """But the last block: nobody reads what it would merge, so that its merge is not executed."""
    groups_LBT, other_LBT = (_groups(bundle, photo(seed), {}, silent) for seed in (1, 2))
    tokens = bundle.manifest.schedule.tokens

    assert groups_LBT.shape == (len(tokens) - 1, 1, tokens[0])
    assert [len(np.unique(block)) for block in groups_LBT] == [*tokens[1:-1], tokens[-2]]
    assert not np.array_equal(groups_LBT, other_LBT)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        pytest.param(Image.new("L", (50_000, 1)), "would be resized to 10000000x200", id="a strip"),
        pytest.param(Image.new("F", (8, 8), 3e9), "got F: ", id="numbers without a range"),
    ],
)
def test_an_image_that_no_model_takes_is_refused(image: Image.Image, reason: str) -> None:
    preprocess = Preprocess(
        image_size=(200, 200), interpolation="bilinear", crop_fraction=1.0, mean=(0.5,) * 3, std=(0.5,) * 3
    )
    with pytest.raises(UsageError, match=f"--image: expected an image that the model takes, .*{reason}"):
        _cropped(image, preprocess)


def test_a_format_that_is_handed_to_another_program_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EPS would be run by Ghostscript, whatever the file is called."""
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_: pytest.fail("Ghostscript was called"))
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.eps")
    (tmp_path / "photo.eps").rename(tmp_path / "photo.png")

    with pytest.raises(UsageError, match="--image: expected an image"):
        _open(str(tmp_path / "photo.png"))


def test_an_image_of_16_bits_is_scaled(tmp_path: Path) -> None:
    ramp_HW = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    (tmp_path / "a.pgm").write_bytes(b"P5 64 64 65535\n" + ramp_HW.astype(">u2").tobytes())

    opened_HW = np.asarray(_open(str(tmp_path / "a.pgm")))

    assert np.abs(opened_HW - ramp_HW / 257.0).max() <= 0.5


def test_an_image_without_a_stated_range_is_refused(tmp_path: Path) -> None:
    Image.new("F", (8, 8), 0.5).save(tmp_path / "a.tiff")

    with pytest.raises(UsageError, match="a.tiff.*floating-point numbers, and nothing says"):
        _open(str(tmp_path / "a.tiff"))


def test_a_pipe_is_no_image(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")

    with pytest.raises(UsageError, match="--image: expected an image, got .*a.png: not a regular file"):
        _open(str(tmp_path / "a.png"))


def test_report_of_a_sweep_is_not_written_through_a_link_of_any_name(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "sweep").mkdir()
    for name in (".report.html.partial", ".report.md.partial", "report.html", "report.md"):
        (tmp_path / "sweep" / name).symlink_to(tmp_path / "mine")

    _write(tmp_path / "sweep", Report(html="<p>", markdown="# a"))

    assert (tmp_path / "mine").read_text() == "mine"
    assert (tmp_path / "sweep/report.html").read_text() == "<p>"
    assert not (tmp_path / "sweep/report.md").is_symlink()
