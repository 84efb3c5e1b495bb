"""Images and labels are what the folder says, or the user hears where they are not."""

import pytest

from exporter.errors import UsageError
from exporter.validation import KnownClasses
from exporter.validation.images import image_folder, open_images
from tests.support.image_trees import PETS, Tree, known, red_of, write


def test_folders_are_the_classes_that_they_are_called_like(tree: Tree) -> None:
    images = image_folder(tree("dog/b.png", "Cat/z.png", "dog/a.png", "cow/deep/er/x.JPEG"), PETS)

    assert images.names == ("Cat/z.png", "cow/deep/er/x.JPEG", "dog/a.png", "dog/b.png")
    assert images.labels == (2, 1, 0, 0)
    assert red_of(images) == [1, 3, 2, 0]
    assert (images.name, images.notes) == ("photos", ())
    assert images.match is not None
    assert images.match.matched_by == "name"
    assert [(each.label, each.name, each.index) for each in images.match.classes] == [
        ("Cat", "cat", 2),
        ("cow", "cow", 1),
        ("dog", "dog", 0),
    ]


def test_folders_named_by_numbers_are_the_class_indices(tree: Tree) -> None:
    images = image_folder(tree("10/a.png", "9/a.png", "007/a.png"), known(1000))
    assert images.names == ("007/a.png", "9/a.png", "10/a.png")
    assert images.labels == (7, 9, 10)


def test_folders_are_numbered_in_order_if_the_user_says_so(tree: Tree) -> None:
    images = image_folder(tree("x/a.png", "b/a.png", "c/a.png"), known(3, in_order=True))
    assert images.names == ("b/a.png", "c/a.png", "x/a.png")
    assert images.labels == (0, 1, 2)


@pytest.mark.parametrize(
    ("names", "classes", "expected"),
    [
        pytest.param(
            ["cat/a.png", "bird/a.png"], PETS, "photos/bird: expected the name of a class", id="no class"
        ),
        pytest.param(
            ["a/a.png", "b/a.png"], known(2), r"nothing says which classes .*\(a, b\)", id="no names"
        ),
        pytest.param(["0/a.png", "cat/a.png"], known(3), "nothing says which", id="one is no number"),
        pytest.param(
            ["1/a.png", "3/a.png"], known(3), "expected a class index from 0 to 2, got 3", id="too large"
        ),
        pytest.param(
            ["1/a.png", "01/a.png"],
            known(3),
            "two folders have the same class, 1: .*01 and .*1;",
            id="same number",
        ),
        pytest.param(["cat/a.png", "CAT/a.png"], PETS, r"same class, 2 \(cat\)", id="the same name"),
        pytest.param(
            ["a.png", "cat/a.png"], PETS, r"images \(a.png\) beside sub-folders \(cat\)", id="beside"
        ),
        pytest.param(
            ["cat/a.txt", "dog/.a.png"], PETS, r"holds no images \(\.apng, ", id="nothing but others"
        ),
        pytest.param(
            ["train/cat/a.png", "test/cat/b.png"],
            known(2, "cat", "dog"),
            r"folders of .*photos \(test, train\) are parts of a data set, not classes; .*--data .*photos/test$",
            id="train and test",
        ),
        pytest.param(["Train2017/a.png", "VAL2017/a.png"], PETS, "--data .*photos/VAL2017$", id="years"),
        pytest.param(["train_set/a.png", "hold-out/a.png"], PETS, "--data .*photos/hold-out$", id="holdout"),
        pytest.param(
            ["dev/a.png", "test/b.png", "x/c.png"], PETS, "--data .*photos/dev$", id="dev, beside others"
        ),
        pytest.param(["validation/cat/a.png"], PETS, "--data .*photos/validation$", id="one of them alone"),
        pytest.param(
            ["train/a.png", "test/b.png"], known(2, in_order=True), "parts of a data set", id="even in order"
        ),
        pytest.param(
            ["cat/train/a.png", "cat/val/b.png", "dog/train/c.png"],
            PETS,
            r"class folders of .*photos hold several parts of a data set \(cat/val, dog/train\).* such as val/CLASS",
            id="parts inside classes",
        ),
        pytest.param(
            ["0/x/test/a.png", "1/train/b.png"], known(2), "several parts of a data set", id="parts, deeper"
        ),
        pytest.param(
            ["animals/cat/a.png", "animals/dog/b.png", "cat/c.png"],
            known(3, "animals", "cat", "dog"),
            'photos/animals holds a folder "cat", which is the name of another class: move',
            id="classes inside a class",
        ),
    ],
)
def test_a_folder_that_would_be_labelled_wrongly_is_refused(
    names: list[str], classes: KnownClasses, expected: str, tree: Tree
) -> None:
    with pytest.raises(UsageError, match=expected):
        image_folder(tree(*names), classes)


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        pytest.param(["train/a.png", "test/a.png"], known(2, "test", "train"), id="both are classes"),
        pytest.param(["train/a.png", "val/a.png"], known(2, "val", "train"), id="in another order"),
        pytest.param(["bus/a.png", "train/a.png"], known(2, in_order=True), id="a train among others"),
    ],
)
def test_classes_may_be_called_like_parts_of_a_data_set(
    names: list[str], classes: KnownClasses, tree: Tree
) -> None:
    assert len(image_folder(tree(*names), classes).names) == 2


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        pytest.param(["cat/images/a.png", "dog/images/b.png"], PETS, id="no parts"),
        pytest.param(["cat/train/a.png", "dog/train/b.png"], PETS, id="one part"),
        pytest.param(["cat/val/a.png", "cat/train/b.txt"], PETS, id="a part without images"),
        pytest.param(["cat/Cat/a.png", "dog/old/b.png"], PETS, id="the class itself"),
    ],
)
def test_other_folders_inside_classes_are_theirs(names: list[str], classes: KnownClasses, tree: Tree) -> None:
    assert image_folder(tree(*names), classes).labels is not None


@pytest.mark.parametrize(
    ("names", "classes", "is_noted"),
    [
        pytest.param(["1/a.png", "02/a.png"], known(3), True, id="1 and 2"),
        pytest.param(["1/a.png"], known(3), False, id="1 alone"),
        pytest.param(["0/a.png", "1/a.png"], known(3), False, id="from 0"),
        pytest.param(["1/a.png", "3/a.png"], known(4), False, id="with a gap"),
        pytest.param(["1/a.png", "2/a.png"], known(3, "0", "1", "2"), False, id="names"),
    ],
)
def test_indices_that_may_count_from_1_are_noted(
    names: list[str], classes: KnownClasses, is_noted: bool, tree: Tree
) -> None:
    folder = tree(*names)
    assert image_folder(folder, classes).notes == (
        ("no folder 0: if yours count from 1, give --classes FILE",) if is_noted else ()
    )
    table = write(folder, ["image,label", *(f"{name},{name.partition('/')[0]}" for name in names)])
    assert open_images(table, classes).notes == (
        ("no label 0: if yours count from 1, give --classes FILE",) if is_noted else ()
    )


def test_a_folder_of_images_alone_has_no_labels(tree: Tree) -> None:
    images = image_folder(tree("b.png", "a.png", "notes.txt"), known(10))
    assert (images.names, images.labels, images.match) == (("a.png", "b.png"), None, None)


def test_without_classes_images_are_taken_at_any_depth(tree: Tree) -> None:
    images = image_folder(tree("b.png", "x/a.png", "x/y/c.png", ".x/d.png"), None)
    assert (images.names, images.labels) == (("b.png", "x/a.png", "x/y/c.png"), None)


def test_links_are_followed_and_a_circle_ends(tree: Tree) -> None:
    folder = tree("cat/a.png")
    elsewhere = tree("b.png", called="elsewhere")
    (folder / "dog").symlink_to(elsewhere)
    (folder / "cat" / "round").symlink_to(folder / "cat")
    (folder / "cat" / "gone.png").symlink_to(folder / "nowhere.png")
    images = image_folder(folder, known(2, "cat", "dog"))
    assert images.names == ("cat/a.png", "cat/gone.png", "dog/b.png")
    assert images.labels == (0, 0, 1)


def test_what_is_named_decides_how_it_is_read(tree: Tree) -> None:
    folder = tree("0/a.png")
    assert open_images(folder, known(1)).labels == (0,)
    assert open_images(folder, None).labels is None
    assert open_images(write(folder, ["image,label", "0/a.png,4"], "L.CSV"), known(5)).labels == (4,)
    with pytest.raises(UsageError, match="there is no .*nowhere"):
        open_images(folder / "nowhere", known(1))
    with pytest.raises(UsageError, match="neither a folder"):
        open_images(folder / "0" / "a.png", known(1))
    with pytest.raises(UsageError, match="expected a folder"):
        image_folder(folder / "nowhere", known(1))
