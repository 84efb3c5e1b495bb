"""Labels are the classes that they name, or the user hears that nobody knows which they are."""

import unicodedata
from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.errors import UsageError, quoted
from exporter.models import ClassNames
from exporter.models.class_names import imagenet_names
from exporter.validation.class_labels import KnownClasses, LabelMatch, Labels, match_labels, require_one_each

PETS: ClassNames = (("dog",), ("cat", "house cat", "n02123045"), ("Guinea pig", "n02364673"))
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
DIGITS: ClassNames = tuple((word, str(digit)) for digit, word in enumerate(WORDS))
CRANES: ClassNames = (("crane", "n02012849"), ("crane", "n03126707"), ("tench",))
FROM_ONE: ClassNames = tuple((str(number),) for number in range(1, 11))


def match(
    labels: Sequence[str],
    names: ClassNames | None,
    *,
    count: int | None = None,
    from_file: bool = False,
    in_order: bool = False,
) -> LabelMatch:
    known = KnownClasses(count=count or len(names or ()), names=names, from_file=from_file, in_order=in_order)
    places = {label: quoted(f"photos/{label}") for label in labels}
    return match_labels(Labels(places=places, kind="folders", data="photos"), known)


def indices(found: LabelMatch) -> dict[str, int]:
    return {each.label: each.index for each in found.classes}


@pytest.mark.parametrize(
    ("labels", "names", "expected", "rule"),
    [
        pytest.param(["cat", "dog"], PETS, {"cat": 1, "dog": 0}, "name", id="a part, in another order"),
        pytest.param(["n02364673", "dog"], PETS, {"n02364673": 2, "dog": 0}, "name", id="any spelling"),
        pytest.param(
            ["guinea_pig", "House-Cat", " DOG"],
            PETS,
            {"guinea_pig": 2, "House-Cat": 1, " DOG": 0},
            "name",
            id="case, _, - and spaces",
        ),
        pytest.param(
            [unicodedata.normalize("NFD", "café")],
            (("bar",), ("café",)),
            {"cafe\u0301": 1},
            "name",
            id="as macOS spells it",
        ),
        pytest.param(["STRASSE"], (("x",), ("straße",)), {"STRASSE": 1}, "name", id="case folding"),
        pytest.param(
            ["a b", "a-b"], (("a-b",), ("a b",)), {"a b": 1, "a-b": 0}, "name", id="the very spelling first"
        ),
        pytest.param(list(WORDS), DIGITS, dict(zip(WORDS, range(10), strict=True)), "name", id="zero..nine"),
        pytest.param(
            [str(each) for each in range(10)],
            DIGITS,
            {str(each): each for each in range(10)},
            "name",
            id="0..9 that are names and indices alike",
        ),
        pytest.param(["three", "7"], DIGITS, {"three": 3, "7": 7}, "name", id="both kinds of names"),
        pytest.param(["2", "0"], PETS, {"0": 0, "2": 2}, "index", id="indices, beside names"),
        pytest.param(["10", "9", "007"], None, {"007": 7, "9": 9, "10": 10}, "index", id="indices"),
        pytest.param(
            [str(each) for each in range(1, 11)],
            FROM_ONE,
            {str(each): each - 1 for each in range(1, 11)},
            "name",
            id="1..10 that cannot be indices",
        ),
        pytest.param(
            ["partridge", "Partridge_"],
            (("ruffed grouse", "partridge"), ("quail",), ("partridge",)),
            {"partridge": 2, "Partridge_": 2},
            "name",
            id="the name that is shown before others",
        ),
        pytest.param(["tench", "n03126707"], CRANES, {"tench": 2, "n03126707": 1}, "name", id="told apart"),
    ],
)
def test_labels_are_matched_by_name_or_by_index(
    labels: list[str], names: ClassNames | None, expected: dict[str, int], rule: str
) -> None:
    found = match(labels, names, count=None if names else 1000)

    assert (indices(found), found.matched_by) == (expected, rule)
    assert [each.name for each in found.classes] == [
        names[each.index][0] if names else None for each in found.classes
    ]


def test_numbers_that_the_user_gives_as_names_are_names() -> None:
    found = match(["2", "3"], FROM_ONE, from_file=True)

    assert (indices(found), found.matched_by) == ({"2": 1, "3": 2}, "classes")


@pytest.mark.parametrize(
    ("labels", "names", "expected"),
    [
        pytest.param(
            ["cat", "dgo"],
            PETS,
            r'^data: photos/dgo: expected the name of a class, as other folders have, got "dgo"\. Did you mean "dog"\?',
            id="one is none",
        ),
        pytest.param(["cat", "x", "y", "z"], PETS, r'got "x" \(and 2 more like it\)', id="several are none"),
        pytest.param(["cat", "2"], PETS, 'got "2"', id="names and indices mixed"),
        pytest.param(
            ["train", "test"],
            PETS,
            r"none of the folders of photos \(train, test\) is the name of a class, of which the model has 3 "
            r"\(dog, cat, Guinea pig\); .* --classes FILE .* --labels-in-order.* --unlabelled",
            id="none is one",
        ),
        pytest.param(
            ["a", "b", "c", "d"],
            None,
            r"nothing says which classes the folders of photos \(a, b, c, ...\) are; .*--classes FILE .*"
            r"--labels-in-order.*--unlabelled",
            id="names not known",
        ),
        pytest.param(
            [f"class{each}" for each in range(1, 11)],
            None,
            "nothing says which classes",
            id="class1..class10",
        ),
        pytest.param(
            ["crane", "tench"],
            CRANES,
            r'photos/crane: "?crane"? is the name of 2 classes \(0 \(crane, n02012849\); 1 \(crane, n03126707\)\)',
            id="two classes of one name",
        ),
        pytest.param(
            ["0", "3"], PETS, "photos/3: expected a class index from 0 to 2, got 3$", id="too large"
        ),
        pytest.param(
            ["1", "2", "3"], PETS, "got 3; they count from 1, the model from 0", id="counted from 1"
        ),
        pytest.param(
            ["1", "2"],
            FROM_ONE,
            "photos/1: 1 is the name of class 0 and the index of another",
            id="two meanings",
        ),
        pytest.param(
            ["0", "1", "2"],
            FROM_ONE,
            "photos/1: 1 is the name of class 0 and",
            id="indices, some of them names",
        ),
        pytest.param(["1" * 30], None, "nothing says which", id="too long for an index"),
        pytest.param(["٣"], None, "nothing says which", id="digits of another script"),
    ],
)
def test_labels_that_nobody_knows_are_refused(
    labels: list[str], names: ClassNames | None, expected: str
) -> None:
    with pytest.raises(UsageError, match=expected) as raised:
        match(labels, names, count=None if names else 10)

    assert "\n" not in str(raised.value)


def test_a_long_label_is_not_quoted_in_full() -> None:
    with pytest.raises(UsageError) as raised:
        match(["cat", "x" * 300], PETS)

    assert "x" * 80 not in str(raised.value)


# In order, if the user says so ----------------------------------------------------------------------


@pytest.mark.parametrize("names", [None, PETS], ids=["names unknown", "names of the model are shown"])
def test_labels_are_numbered_in_order_if_the_user_says_so(names: ClassNames | None) -> None:
    found = match(["red", "blue", "green"], names, count=3, in_order=True)

    assert (indices(found), found.matched_by) == ({"blue": 0, "green": 1, "red": 2}, "order")
    assert [each.name for each in found.classes] == (
        [None] * 3 if names is None else ["dog", "cat", "Guinea pig"]
    )


@pytest.mark.parametrize(
    ("labels", "names", "expected"),
    [
        pytest.param(["a", "b"], PETS, "expected 3 folders as the model has classes, .* got 2", id="too few"),
        pytest.param(["a", "b", "c", "d"], PETS, "expected 3 folders .* got 4", id="too many"),
        pytest.param(
            ["cat", "dog", "mouse"],
            PETS,
            "photos/cat: in the order of the names it would be class 0, and the model calls class 1 so",
            id="names say otherwise",
        ),
        pytest.param(
            [f"class{each}" for each in range(1, 11)],
            DIGITS,
            "two ways: class1, class10 as text, class1, class2 as numbers; .*--classes FILE",
            id="class1..class10",
        ),
        pytest.param(
            [str(each) for each in range(1, 11)],
            (*DIGITS[:9], ("ten",)),
            "two ways: 1, 10 as text",
            id="1..10",
        ),
    ],
)
def test_an_order_that_is_not_the_models_is_refused(
    labels: list[str], names: ClassNames, expected: str
) -> None:
    with pytest.raises(UsageError, match=expected):
        match(labels, names, in_order=True)


# What is true of every match ------------------------------------------------------------------------

words = st.text("abcdefg_- AB", min_size=1, max_size=6).filter(lambda text: text.strip("_- "))


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[str], ClassNames]:
    """Names, of which no two are alike, and a part of them as labels."""
    alike = lambda text: " ".join(text.lower().replace("_", " ").replace("-", " ").split())  # noqa: E731
    names = draw(st.lists(words, min_size=1, max_size=8, unique_by=alike))
    labels = draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    return labels, tuple((name,) for name in names)


@given(case=cases(), random=st.randoms())
def test_a_match_does_not_depend_on_the_order_of_the_labels(
    case: tuple[list[str], ClassNames], random: Random
) -> None:
    labels, names = case
    shuffled = list(labels)
    random.shuffle(shuffled)

    assert indices(match(labels, names)) == indices(match(shuffled, names))


@given(case=cases())
def test_a_match_gives_every_label_its_own_class_and_ignores_spelling(
    case: tuple[list[str], ClassNames],
) -> None:
    labels, names = case
    found = indices(match(labels, names))

    assert all(names[index] == (label,) for label, index in found.items())
    assert len(set(found.values())) == len(labels)
    spelled = {label: label.swapcase().replace("_", " ").replace("-", "_") for label in labels}
    if len(set(spelled.values())) == len(labels):
        other = indices(match(list(spelled.values()), names))
        assert {label: other[spelled[label]] for label in labels} == found


@given(case=cases(), random=st.randoms(use_true_random=False))
def test_a_match_follows_the_classes_when_they_are_renumbered(
    case: tuple[list[str], ClassNames], random: Random
) -> None:
    labels, names = case
    renumbered = list(names)
    random.shuffle(renumbered)
    found = indices(match(labels, tuple(renumbered)))

    assert all(renumbered[index] == (label,) for label, index in found.items())


def test_imagenets_synsets_and_words_are_its_classes() -> None:
    names = imagenet_names(1000)
    assert names is not None
    synsets = {spellings[-1]: index for index, spellings in enumerate(names)}
    words = {
        spellings[0]: index
        for index, spellings in enumerate(names)
        if spellings[0] not in ("crane", "maillot")
    }

    assert len(synsets) == 1000
    assert sorted(synsets, key=synsets.__getitem__) == sorted(synsets), (
        "ImageNet's order is that of its synsets"
    )
    assert indices(match(sorted(synsets, reverse=True), names)) == synsets
    assert len(words) == 996, "both cranes and both maillots are left out"
    assert indices(match(list(words), names)) == words
    with pytest.raises(UsageError, match=r"is the name of 2 classes \(134 .*517 .*n03126707"):
        match(["tench", "crane"], names)


def test_two_folders_of_one_class_are_refused() -> None:
    found = match(["cat", "dog", "n02123045"], PETS)
    labels = Labels(places={each: f"photos/{each}" for each in indices(found)}, kind="folders", data="photos")

    with pytest.raises(
        UsageError, match=r"two folders have the same class, 1 \(cat\): photos/cat and photos/n02123045"
    ):
        require_one_each(labels, found)
