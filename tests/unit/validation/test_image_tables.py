"""Images, labels and captions are what the table says, each image once, or the user hears the line."""

import pytest

from exporter.errors import UsageError
from exporter.validation import KnownClasses
from exporter.validation.images import image_csv, image_pairs, open_images
from tests.support.image_trees import PETS, Tree, known, red_of, write


def test_a_table_gives_paths_as_seen_from_it(tree: Tree) -> None:
    folder = tree("a.png", "x/b.png", "x/c.png")
    path = write(folder, ["image,label", "x/b.png,2", "", f'"{folder / "a.png"}",0', "x/c.png , 1"])
    images = image_csv(path, known(3))
    assert images.names == ("x/b.png", str(folder / "a.png"), "x/c.png")
    assert images.labels == (2, 0, 1)
    assert red_of(images) == [1, 0, 2]


def test_a_table_may_give_class_names(tree: Tree) -> None:
    folder = tree("a.png", "b.png", "c.png")
    images = image_csv(write(folder, ["image,label", "c.png,DOG", "a.png,cat", "b.png,dog"]), PETS)
    assert images.labels == (0, 2, 0)
    assert images.match is not None
    assert images.match.index_of() == {"DOG": 0, "cat": 2, "dog": 0}


def test_a_table_is_numbered_in_order_if_the_user_says_so(tree: Tree) -> None:
    folder = tree("a.png", "b.png", "c.png")
    lines = ["image,label", "c.png,x", "a.png,b", "b.png,x"]
    assert image_csv(write(folder, lines), known(2, in_order=True)).labels == (1, 0, 1)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param(["image,label", "a.png,1", "b.png,3"], "line 3: .* from 0 to 2, got 3", id="too large"),
        pytest.param(["image,label", "a.png,-1"], r"none of the labels .* \(-1\)", id="negative"),
        pytest.param(["image,label", "a.png," + "9" * 5000], "none of the labels", id="endless"),
        pytest.param(
            ["image,label", "a.png,cat", "b.png,cta"],
            'line 3: .* got "cta".* Did you mean "cat"',
            id="a name",
        ),
        pytest.param(["image,label", "c.png,1"], "line 2: there is no image .*c.png", id="missing"),
        pytest.param(["image,label", "x" * 300 + ",1"], "line 2: there is no image", id="endless name"),
        pytest.param(["image,label"], "expected rows of image,label below the header", id="no rows"),
        pytest.param(
            ["image,class", "a.png,1"], "expected the header image,label, got image,class", id="header"
        ),
        pytest.param(
            ["image,label", "a.png,cat", "b.png,cat", "./a.png,dog"],
            r'line 4: \./a\.png has the label "dog", and in line 2 "cat"; keep one',
            id="an image of two classes",
        ),
        pytest.param(
            ["image,label", "a.png,1", "x/../a.png,2"],
            r"line 3: x/\.\./a\.png has the label",
            id="a way around",
        ),
    ],
)
def test_a_wrong_table_is_refused_with_its_line(lines: list[str], expected: str, tree: Tree) -> None:
    with pytest.raises(UsageError, match=expected) as raised:
        image_csv(write(tree("a.png", "b.png", "x/c.png"), lines), PETS)
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize("again", ["a.png", "./a.png", "x/../a.png", "x//..//a.png"])
@pytest.mark.parametrize("classes", [None, PETS], ids=["unlabelled", "labelled"])
def test_an_image_that_is_listed_again_counts_once(
    again: str, classes: KnownClasses | None, tree: Tree
) -> None:
    folder = tree("a.png", "x/b.png")
    lines = ["image,label", "a.png,cat", f"{again},CAT", "x/b.png,dog", f"{folder / 'x' / 'b.png'},dog"]

    images = image_csv(write(folder, lines), classes)

    assert images.names == ("a.png", "x/b.png")
    assert images.labels == (None if classes is None else (2, 0))
    assert images.notes == ("2 rows of images listed before left out, the first in line 3",)


def test_links_to_one_image_are_images_of_their_own(tree: Tree) -> None:
    folder = tree("a.png")
    (folder / "b.png").symlink_to(folder / "a.png")
    images = image_csv(write(folder, ["image,label", "a.png,cat", "b.png,dog"]), PETS)
    assert (images.labels, images.notes) == ((2, 0), ())


def test_an_unlabelled_table_needs_no_labels_and_reads_none(tree: Tree) -> None:
    path = write(tree("a.png"), ["label,image", "what,a.png"])
    images = open_images(path, None)
    assert (images.names, images.labels) == (("a.png",), None)


def test_captions_are_paired_with_images(tree: Tree) -> None:
    lines = ["image,caption", "b.png,two dogs", 'a.png,"a cat, asleep"', "b.png,a cat, asleep"]
    lines[-1] = './b.png,"a cat, asleep"'
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
