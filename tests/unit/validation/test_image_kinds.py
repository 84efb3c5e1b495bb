"""What is no image and no class is left out, and named; what Pillow opens is taken."""

import os
from pathlib import Path

import pytest
from PIL import Image

from exporter.errors import UsageError
from exporter.validation import KnownClasses
from exporter.validation.images import image_folder
from tests.support.image_trees import PETS, Tree, known, red_of

SKIPPED = "skipped, as no images and no classes: "


@pytest.mark.parametrize(
    ("names", "notes"),
    [
        pytest.param(
            ["__MACOSX/._a.png", "__MACOSX/cat/b.png"],
            (f"{SKIPPED}__MACOSX",),
            id="what macOS puts into archives",
        ),
        pytest.param([".ipynb_checkpoints/a.png"], (f"{SKIPPED}.ipynb_checkpoints",), id="hidden folder"),
        pytest.param(
            ["cat/.ipynb_checkpoints/b.png"], (f"{SKIPPED}.ipynb_checkpoints",), id="hidden, deeper"
        ),
        pytest.param(["cat/@eaDir/b.png", "@eaDir/c.png"], (f"{SKIPPED}@eaDir",), id="a NAS's thumbnails"),
        pytest.param(
            ["lost+found/a.png", "LOST+FOUND/a.png"], (f"{SKIPPED}LOST+FOUND, lost+found",), id="of a disk"
        ),
        pytest.param(
            ["Thumbs.db", "cat/desktop.ini"], (f"{SKIPPED}Thumbs.db, desktop.ini",), id="of Windows"
        ),
        pytest.param([".DS_Store", "cat/._a.png"], (f"{SKIPPED}.DS_Store, ._a.png",), id="hidden files"),
        pytest.param(["unused/notes.txt"], ("skipped, as without images: unused",), id="without images"),
        pytest.param(
            ["cat/b.heic", "cat/c.HEIC", "dog/d.svg", "old/e.cr2"],
            (
                "4 files (2 .heic, 1 .cr2, 1 .svg) left out, not read here: convert to PNG or JPEG",
                "skipped, as without images: old",
            ),
            id="kinds that are not read",
        ),
        pytest.param(["README.md", "cat/labels.json"], (), id="other files"),
    ],
)
def test_what_is_no_class_and_no_image_is_left_out_and_named(
    names: list[str], notes: tuple[str, ...], tree: Tree
) -> None:
    images = image_folder(tree("cat/a.png", "dog/a.png", *names), PETS)

    assert (images.names, images.labels) == (("cat/a.png", "dog/a.png"), (2, 0))
    assert images.notes == notes


def test_without_classes_the_same_is_left_out_and_named(tree: Tree) -> None:
    images = image_folder(tree("x/a.png", "__MACOSX/a.png", "x/b.heic", "x/.c.png"), None)

    assert images.names == ("x/a.png",)
    assert images.notes == (
        "1 file (1 .heic) left out, not read here: convert to PNG or JPEG",
        f"{SKIPPED}.c.png, __MACOSX",
    )


def test_a_class_may_be_called_like_what_is_stray_elsewhere(tree: Tree) -> None:
    images = image_folder(tree("lost+found/a.png", "office/a.png"), known(2, "Lost+Found", "office"))

    assert (images.labels, images.notes) == ((0, 1), ())


@pytest.mark.parametrize("classes", [None, PETS], ids=["unlabelled", "labelled"])
def test_a_folder_of_kinds_that_are_not_read_is_refused_naming_them(
    classes: KnownClasses | None, tree: Tree
) -> None:
    with pytest.raises(
        UsageError,
        match=r"no images that are read here, but 3 files \(2 \.heic, 1 \.jxl\): convert them to PNG",
    ):
        image_folder(tree("cat/a.heic", "cat/b.heic", "dog/c.jxl"), classes)


@pytest.mark.parametrize(
    ("suffix", "file_format"),
    [
        ("jfif", "JPEG"),
        ("jpe", "JPEG"),
        ("avif", "AVIF"),
        ("jp2", "JPEG2000"),
        ("pnm", "PPM"),
        ("WebP", "WEBP"),
    ],
)
def test_every_kind_that_pillow_opens_is_taken(suffix: str, file_format: str, tmp_path: Path) -> None:
    Image.new("RGB", (16, 16), (200, 0, 0)).save(tmp_path / f"a.{suffix}", file_format)

    assert red_of(image_folder(tmp_path, None))[0] == pytest.approx(200, abs=3)


def test_a_folder_that_cannot_be_read_is_refused(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, honest = tree("cat/a.png", "dog/a.png"), os.scandir

    def scandir(path: str) -> object:
        if Path(path).name == "dog":
            raise PermissionError(13, "Permission denied", str(path))
        return honest(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(UsageError, match="dog cannot be read .Permission denied.; move it away"):
        image_folder(folder, PETS)
