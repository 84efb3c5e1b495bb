"""Images and labels are what the folder or the file says, or the user hears where they are not."""

import os
import pickle
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from exporter.errors import InternalError, UsageError
from exporter.validation.images import (
    ImageSet,
    image_arrays,
    image_csv,
    image_folder,
    image_pairs,
    open_images,
)

Tree = Callable[..., Path]


def colour(number: int) -> Image.Image:
    return Image.new("RGB", (2, 2), (number, 0, 0))


def red_of(images: ImageSet) -> list[int]:
    return [np.asarray(images.open(position))[0, 0, 0].item() for position in range(len(images.names))]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Makes a folder of PNG files; the n-th is of colour n."""

    def make(*names: str, called: str = "photos") -> Path:
        for number, name in enumerate(names):
            path = tmp_path / called / name
            path.parent.mkdir(parents=True, exist_ok=True)
            colour(number).save(path, "PNG")
        return tmp_path / called

    return make


def write(folder: Path, lines: Iterable[str], name: str = "list.csv") -> Path:
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_folders_are_numbered_in_the_order_of_their_names(tree: Tree) -> None:
    images = image_folder(tree("dog/b.png", "cat/z.png", "dog/a.png", "cow/deep/er/x.JPEG"), classes=3)
    assert images.names == ("cat/z.png", "cow/deep/er/x.JPEG", "dog/a.png", "dog/b.png")
    assert images.labels == (0, 1, 2, 2)
    assert red_of(images) == [1, 3, 2, 0]
    assert images.name == "photos"


def test_folders_named_by_numbers_are_the_class_indices(tree: Tree) -> None:
    images = image_folder(tree("10/a.png", "9/a.png", "007/a.png"), classes=1000)
    assert images.names == ("007/a.png", "9/a.png", "10/a.png")
    assert images.labels == (7, 9, 10)


@pytest.mark.parametrize(
    ("names", "classes", "expected"),
    [
        pytest.param(
            ["cat/a.png", "dog/a.png"],
            1000,
            "expected 1000 class folders as the model has, got 2 .* give a CSV of image,label",
            id="some of the classes",
        ),
        pytest.param(["0/a.png", "cat/a.png"], 3, "expected 3 class folders", id="one is no number"),
        pytest.param(["1/a.png", "3/a.png"], 3, "expected a class index from 0 to 2, got 3", id="too large"),
        pytest.param(["1/a.png", "01/a.png"], 3, "two folders .* same class index", id="the same number"),
        pytest.param(["a.png", "cat/a.png"], 1, r"images \(a.png\) beside sub-folders \(cat\)", id="beside"),
        pytest.param(["cat/a.txt", "dog/.a.png"], 2, "holds no images", id="nothing but others"),
    ],
)
def test_a_folder_that_would_be_labelled_wrongly_is_refused(
    names: list[str], classes: int, expected: str, tree: Tree
) -> None:
    with pytest.raises(UsageError, match=expected):
        image_folder(tree(*names), classes=classes)


def test_folders_called_like_the_classes_are_numbered_by_them(tree: Tree) -> None:
    folder = tree("cat/a.png", "dog/a.png")

    images = image_folder(folder, classes=3, class_names=("dog", "cow", "cat"))

    assert images.labels == (2, 0)


def test_a_folder_among_class_names_that_is_none_is_refused(tree: Tree) -> None:
    with pytest.raises(UsageError, match=r"photos/bird: expected a folder called like a class"):
        image_folder(tree("cat/a.png", "bird/a.png"), classes=2, class_names=("dog", "cat"))


@pytest.mark.parametrize("spelling", ["Great White_Shark", "great-white shark", "GREAT WHITE SHARK"])
def test_folders_called_almost_like_a_class_are_refused_rather_than_numbered(
    tree: Tree, spelling: str
) -> None:
    names = ("tench", "great white shark")

    with pytest.raises(UsageError, match=f"got {spelling} for the class great white shark"):
        image_folder(tree(f"{spelling}/a.png", "Other/a.png"), classes=2, class_names=names)


def test_classes_that_differ_in_spelling_only_are_told_apart(tree: Tree) -> None:
    images = image_folder(tree("a b/x.png", "a-b/x.png"), classes=2, class_names=("a-b", "a b"))

    assert images.labels == (1, 0)


def test_folders_that_are_called_otherwise_are_numbered_in_order_beside_class_names(tree: Tree) -> None:
    images = image_folder(tree("n01/a.png", "n02/a.png"), classes=2, class_names=("tench", "goldfish"))

    assert images.labels == (0, 1)


def test_a_model_without_classes_takes_any_number_of_folders(tree: Tree) -> None:
    assert image_folder(tree("cat/a.png", "dog/a.png"), classes=None).labels == (0, 1)


def test_a_folder_of_images_alone_has_no_labels(tree: Tree) -> None:
    images = image_folder(tree("b.png", "a.png", "notes.txt", "._a.png"), classes=10)
    assert (images.names, images.labels) == (("a.png", "b.png"), None)


def test_unlabelled_takes_images_at_any_depth(tree: Tree) -> None:
    images = image_folder(tree("b.png", "x/a.png", "x/y/c.png", ".x/d.png"), classes=10, unlabelled=True)
    assert (images.names, images.labels) == (("b.png", "x/a.png", "x/y/c.png"), None)


def test_links_are_followed_and_a_circle_ends(tree: Tree) -> None:
    folder = tree("cat/a.png")
    elsewhere = tree("b.png", called="elsewhere")
    (folder / "dog").symlink_to(elsewhere)
    (folder / "cat" / "round").symlink_to(folder / "cat")
    (folder / "cat" / "gone.png").symlink_to(folder / "nowhere.png")
    images = image_folder(folder, classes=2)
    assert images.names == ("cat/a.png", "cat/gone.png", "dog/b.png")
    assert images.labels == (0, 0, 1)


def test_a_table_gives_paths_as_seen_from_it(tree: Tree) -> None:
    folder = tree("a.png", "x/b.png")
    path = write(folder, ["image,label", "x/b.png,2", "", f'"{folder / "a.png"}",0', "x/b.png , 1"])
    images = image_csv(path, classes=3)
    assert images.names == ("x/b.png", str(folder / "a.png"), "x/b.png")
    assert images.labels == (2, 0, 1)
    assert red_of(images) == [1, 0, 1]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param(
            ["image,label", "a.png,1", "a.png,3"], "line 3: .* from 0 to 2, .* got 3", id="too large"
        ),
        pytest.param(["image,label", "a.png,-1"], 'line 2: .* got "-1"', id="negative"),
        pytest.param(["image,label", "a.png," + "9" * 5000], "line 2: expected a class index", id="endless"),
        pytest.param(["image,label", "a.png,cat"], 'got "cat"; class names are not understood', id="a name"),
        pytest.param(["image,label", "b.png,1"], "line 2: there is no image .*b.png", id="missing"),
        pytest.param(["image,label", "x" * 300 + ",1"], "line 2: there is no image", id="endless name"),
        pytest.param(["image,label"], "expected rows of image,label below the header", id="no rows"),
        pytest.param(
            ["image,class", "a.png,1"], "expected the header image,label, got image,class", id="header"
        ),
    ],
)
def test_a_wrong_table_is_refused_with_its_line(lines: list[str], expected: str, tree: Tree) -> None:
    with pytest.raises(UsageError, match=expected):
        image_csv(write(tree("a.png"), lines), classes=3)


def test_an_unlabelled_table_needs_no_labels_and_reads_none(tree: Tree) -> None:
    path = write(tree("a.png"), ["label,image", "what,a.png"])
    images = open_images(path, classes=3, unlabelled=True)
    assert (images.names, images.labels) == (("a.png",), None)


def test_captions_are_paired_with_images(tree: Tree) -> None:
    lines = ["image,caption", "b.png,two dogs", 'a.png,"a cat, asleep"', "b.png,a cat, asleep"]
    lines[-1] = 'b.png,"a cat, asleep"'
    pairs = image_pairs(write(tree("a.png", "b.png"), [*lines, lines[-1]]))
    assert pairs.images.names == ("b.png", "a.png")
    assert pairs.images.labels is None
    assert pairs.texts == ("two dogs", "a cat, asleep")
    assert pairs.pairs == ((0, 0), (1, 1), (0, 1))
    assert red_of(pairs.images) == [1, 0]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        pytest.param("a.png,", "line 2: caption is empty", id="no caption"),
        pytest.param("c.png,a cat", "line 2: there is no image", id="no image"),
        pytest.param("a.png,a cat, asleep", "line 2: expected 2 cells .* double quotes", id="a comma"),
    ],
)
def test_wrong_captions_are_refused_with_their_line(row: str, expected: str, tree: Tree) -> None:
    with pytest.raises(UsageError, match=expected):
        image_pairs(write(tree("a.png"), ["image,caption", row]))


def test_what_is_named_decides_how_it_is_read(tree: Tree) -> None:
    folder = tree("0/a.png")
    assert open_images(folder, classes=1).labels == (0,)
    assert open_images(folder, classes=1, unlabelled=True).labels is None
    assert open_images(write(folder, ["image,label", "0/a.png,4"], "L.CSV"), classes=5).labels == (4,)
    with pytest.raises(UsageError, match="there is no .*nowhere"):
        open_images(folder / "nowhere", classes=1)
    with pytest.raises(UsageError, match="neither a folder"):
        open_images(folder / "0" / "a.png", classes=1)
    with pytest.raises(UsageError, match="expected a folder"):
        image_folder(folder / "nowhere", classes=1)


def test_arrays_open_as_they_are() -> None:
    pixels_BHWC = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), dtype=np.uint8)
    images = image_arrays(pixels_BHWC, np.array([2, 0, 1]), "scans")
    assert images.names == ("scans[0]", "scans[1]", "scans[2]")
    assert images.labels == (2, 0, 1)
    np.testing.assert_array_equal(np.asarray(images.open(1)), pixels_BHWC[1])


@pytest.mark.parametrize(
    ("pixels", "labels"),
    [
        pytest.param(np.zeros((2, 4, 4, 3)), None, id="floats"),
        pytest.param(np.zeros((2, 3, 4, 4), np.uint8), None, id="channels first"),
        pytest.param(np.zeros((2, 4, 4, 3), np.uint8), [0], id="too few labels"),
    ],
)
def test_arrays_of_another_kind_are_our_mistake(pixels: np.ndarray, labels: list[int] | None) -> None:
    with pytest.raises(InternalError):
        image_arrays(pixels, labels, "scans")


def test_sets_can_be_sent_to_another_process(tree: Tree) -> None:
    images = image_folder(tree("0/a.png", "1/a.png"), classes=2)
    arrays = image_arrays(np.full((1, 2, 2, 3), 7, np.uint8), None, "scans")
    assert red_of(pickle.loads(pickle.dumps(images))) == [0, 1]
    assert red_of(pickle.loads(pickle.dumps(arrays))) == [7]


def test_what_a_file_holds_decides_and_only_known_formats_are_tried(tree: Tree) -> None:
    folder = tree("a.jpg")  # a PNG inside
    (folder / "b.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n%%EndComments\n")
    images = image_folder(folder, classes=None)
    assert images.open(0).format == "PNG"
    with pytest.raises(OSError, match="cannot identify"):
        images.open(1)


def test_the_fingerprint_changes_with_names_labels_and_contents_only(tree: Tree) -> None:
    folder = tree("0/a.png", "1/a.png")
    before = image_folder(folder, classes=2).fingerprint
    assert image_folder(folder, classes=5).fingerprint == before
    assert len(before) == 64

    (folder / "1").rename(folder / "2")
    renamed = image_folder(folder, classes=5).fingerprint
    (folder / "2").rename(folder / "1")
    other_labels = image_folder(folder, classes=2, unlabelled=True).fingerprint
    os.utime(folder / "0" / "a.png", ns=(1, 1))
    touched = image_folder(folder, classes=2).fingerprint
    assert len({before, renamed, other_labels, touched}) == 4


def test_the_fingerprint_of_arrays_changes_with_pixels_and_labels() -> None:
    pixels = np.zeros((2, 2, 2, 3), np.uint8)
    before = image_arrays(pixels, [0, 1], "scans").fingerprint
    assert image_arrays(pixels.copy(), [0, 1], "scans").fingerprint == before
    changed = pixels.copy()
    changed[1, 1, 1, 2] = 1
    others = {
        image_arrays(changed, [0, 1], "scans").fingerprint,
        image_arrays(pixels, [1, 0], "scans").fingerprint,
        image_arrays(pixels, None, "scans").fingerprint,
    }
    assert len(others | {before}) == 4
