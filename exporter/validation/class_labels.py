"""Which of the model's classes each label of the user's images is.

From the labels of a folder or a table to the class indices that accuracy is measured with.
In: labels, each with its place for messages, and what is known of the classes. Out: a `LabelMatch`, or a refusal of one
line. Pure: no file is read here.

The rules, in this order:

1. Every label is the name of a class: one of its spellings, in any case, `_`, `-` and spaces being equal.
2. Every label is a class index, in decimal digits.
3. Labels are numbered in the order of their names only if the user says so, and then there is one for every class.

A part of the classes is enough for the first two. Where the rules would give different classes, nothing is chosen.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from exporter.errors import UsageError, nearest, quoted
from exporter.models import ClassNames
from exporter.records import ClassLabel

MOST_DIGITS = 9  # of a class index
_SHOWN = 3

MatchedBy = Literal["name", "classes", "index", "order"]

_RULES: dict[str | None, str] = {
    "name": "the model's class names",
    "classes": "the names of --classes",
    "index": "class index",
    "order": "the order of their names",
}

_WAYS_OUT = (
    "say how the classes are called with --classes FILE (one name per line, in the model's order), or that the model "
    "numbers them in the order of their names with --labels-in-order, or leave the labels out with --unlabelled"
)


@dataclass(frozen=True, kw_only=True)
class KnownClasses:
    """What labels are matched with.

    Attributes:
        count: classes of the model.
        names: for each class index its spellings, the first one shown; None where they are unknown.
        from_file: whether the user gave the names, and so means them.
        in_order: whether the user says that labels are numbered in the order of their names.
    """

    count: int
    names: ClassNames | None = None
    from_file: bool = False
    in_order: bool = False

    def name(self, index: int) -> str | None:
        """The name of a class that is shown."""
        return self.names[index][0] if self.names is not None else None

    def called(self, labels: Iterable[str]) -> dict[str, tuple[int, ...]]:
        """By label, the classes that it names.

        Names that are shown count before other spellings (ImageNet has a partridge, and a ruffed grouse that is also
        called so), and the very name before one that is alike but for case, `_`, `-` and spaces.
        """
        exact, shown, alike = (dict[str, dict[int, None]]() for _ in range(3))
        for index, spellings in enumerate(self.names or ()):
            exact.setdefault(spellings[0], {})[index] = None
            shown.setdefault(spelled(spellings[0]), {})[index] = None
            for spelling in spellings:
                alike.setdefault(spelled(spelling), {})[index] = None
        return {
            label: tuple(exact.get(label) or shown.get(spelled(label)) or alike.get(spelled(label)) or ())
            for label in labels
        }


@dataclass(frozen=True, kw_only=True)
class Labels:
    """What is matched.

    Attributes:
        places: each different label, with where it stands as messages name it: a folder's path, a table's line.
        kind: what messages call them.
        data: where all of them are from.
    """

    places: Mapping[str, str]
    kind: Literal["folders", "labels"]
    data: str


@dataclass(frozen=True, kw_only=True)
class LabelMatch:
    """Every label with its class, and by which rule."""

    matched_by: MatchedBy
    classes: tuple[ClassLabel, ...]

    def index_of(self) -> dict[str, int]:
        """Class index by label."""
        return {each.label: each.index for each in self.classes}


def match_labels(labels: Labels, known: KnownClasses) -> LabelMatch:
    """Find the class of every label.

    Args:
        labels: at least one.
        known: classes of the model.

    Raises:
        UsageError: a label is no class or more than one, two rules say different things, or nothing says which class
            is which.
    """
    named = known.called(labels.places)
    indexed = _indices(labels.places)
    if known.in_order:
        return _in_order(labels, known, named)
    if indexed is not None and not (known.from_file and all(named.values())):
        _refuse_two_meanings(labels, known, named, indexed)
    if all(named.values()):
        _refuse_ambiguous(labels, known, named)
        return _match(known, {label: named[label][0] for label in labels.places}, "name")
    if indexed is not None:
        _refuse_out_of_range(labels, known, indexed)
        return _match(known, dict(sorted(indexed.items(), key=lambda item: item[1])), "index")
    strangers = [label for label, classes in named.items() if not classes]
    raise _stranger(labels, known, strangers) if any(named.values()) else _strangers(labels, known)


def require_one_each(labels: Labels, match: LabelMatch) -> None:
    """Raise a UsageError where two labels are the same class."""
    seen: dict[int, str] = {}
    for each in match.classes:
        first = seen.setdefault(each.index, each.label)
        if first != each.label:
            raise UsageError(
                f"data: two {labels.kind} have the same class, {_class_text(each.index, each.name)}: "
                f"{labels.places[first]} and {labels.places[each.label]}; put their images into one"
            )


def matched_by_text(rule: str | None) -> str:
    """What a `MatchedBy` means, for summaries and reports."""
    return _RULES.get(rule, "an unknown rule")


def spelled(name: str) -> str:
    """A name without what people and file systems spell differently: case, `_`, `-`, spaces, composed letters."""
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
    return " ".join(folded.replace("_", " ").replace("-", " ").split())


def _indices(labels: Iterable[str]) -> dict[str, int] | None:
    """Class indices, where all labels are some."""
    if all(label.isascii() and label.isdecimal() and len(label) <= MOST_DIGITS for label in labels):
        return {label: int(label) for label in labels}
    return None


def _match(known: KnownClasses, indices: Mapping[str, int], rule: MatchedBy) -> LabelMatch:
    return LabelMatch(
        matched_by="classes" if rule == "name" and known.from_file else rule,
        classes=tuple(
            ClassLabel(label=label, index=index, name=known.name(index)) for label, index in indices.items()
        ),
    )


def _in_order(labels: Labels, known: KnownClasses, named: Mapping[str, Sequence[int]]) -> LabelMatch:
    """Rule 3, where nothing speaks against it."""
    if len(labels.places) != known.count:
        raise UsageError(
            f"data: expected {known.count} {labels.kind} as the model has classes, to number them in order, got "
            f"{len(labels.places)} in {labels.data}; match a part of the classes by name, with --classes FILE"
        )
    ordered = sorted(labels.places)
    by_number = sorted(labels.places, key=_numbers_as_such)
    if ordered != by_number:
        place = next(place for place in range(len(ordered)) if ordered[place] != by_number[place])
        raise UsageError(
            f"data: the order of the {labels.kind} in {labels.data} can be meant in two ways: "
            f"{_listed(ordered[place - 1 : place + 1])} as text, {_listed(by_number[place - 1 : place + 1])} as "
            "numbers; say the order with --classes FILE, with a line for each of them"
        )
    for index, label in enumerate(ordered):
        if named[label] and index not in named[label]:
            raise UsageError(
                f"data: {labels.places[label]}: in the order of the names it would be class {index}, and the model "
                f"calls class {named[label][0]} so; leave --labels-in-order out, or say otherwise with --classes FILE"
            )
    return _match(known, {label: index for index, label in enumerate(ordered)}, "order")


def _numbers_as_such(label: str) -> tuple[object, ...]:
    parts = re.split("([0-9]+)", label)
    return tuple(int(part) if position % 2 else part for position, part in enumerate(parts))


def _refuse_two_meanings(
    labels: Labels, known: KnownClasses, named: Mapping[str, Sequence[int]], indexed: Mapping[str, int]
) -> None:
    """Numbers that are names of classes and indices of others, unless only one of the two is possible for all."""
    if all(named.values()) and max(indexed.values()) >= known.count:
        return
    for label, index in indexed.items():
        if named[label] and index not in named[label]:
            raise UsageError(
                f"data: {labels.places[label]}: {quoted(label)} is the name of class {named[label][0]} and the index "
                "of another; say which is meant with --classes FILE, with a class name per line"
            )


def _refuse_ambiguous(labels: Labels, known: KnownClasses, named: Mapping[str, Sequence[int]]) -> None:
    for label, classes in named.items():
        if len(classes) > 1:
            others = "; ".join(_class_text(index, _listed((known.names or ())[index])) for index in classes)
            raise UsageError(
                f"data: {labels.places[label]}: {quoted(label)} is the name of {len(classes)} classes ({others}); "
                "take a spelling that only one of them has, or indices for all, or give other names with "
                "--classes FILE"
            )


def _refuse_out_of_range(labels: Labels, known: KnownClasses, indexed: Mapping[str, int]) -> None:
    label, largest = max(indexed.items(), key=lambda item: item[1])
    if largest >= known.count:
        hint = (
            "; they count from 1, the model from 0"
            if min(indexed.values()) == 1 and largest == known.count
            else ""
        )
        raise UsageError(
            f"data: {labels.places[label]}: expected a class index from 0 to {known.count - 1}, got {largest}{hint}"
        )


def _stranger(labels: Labels, known: KnownClasses, strangers: Sequence[str]) -> UsageError:
    """The complaint about some labels that are no classes, where others are."""
    meant = nearest(strangers[0], (each for spellings in known.names or () for each in spellings))
    more = f" (and {len(strangers) - 1} more like it)" if len(strangers) > 1 else ""
    return UsageError(
        f"data: {labels.places[strangers[0]]}: expected the name of a class, as other {labels.kind} have, got "
        f'"{quoted(strangers[0])}"{more}.{meant} Rename it, or leave its images out'
    )


def _strangers(labels: Labels, known: KnownClasses) -> UsageError:
    """The complaint about labels of which none is a class."""
    got = f"{labels.kind} of {labels.data} ({_listed(list(labels.places))})"
    if known.names is None:
        return UsageError(f"data: nothing says which classes the {got} are; {_WAYS_OUT}")
    source = "--classes" if known.from_file else "the model"
    named = [spellings[0] for spellings in known.names]
    return UsageError(
        f"data: none of the {got} is the name of a class, of which {source} has {len(named)} ({_listed(named)}); "
        f"rename them, or {_WAYS_OUT}"
    )


def _listed(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > _SHOWN else ""
    return ", ".join(quoted(name, 40) for name in names[:_SHOWN]) + more


def _class_text(index: int, name: str | None) -> str:
    return f"{index}" if name is None else f"{index} ({quoted(name)})"
