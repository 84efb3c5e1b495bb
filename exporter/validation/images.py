"""What the user names with `--data` and `--pairs`: images in a folder or a CSV file, with labels or without.

In: a path, and what is known of the model's classes. Out: an `ImageSet` whose labels are class indices. A label that
the model does not have is an error here, before anything runs; what is left out is noted.
"""

import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from exporter.errors import UsageError, quoted
from exporter.images import (
    SUFFIXES,
    Listing,
    is_stray,
    join_listings,
    kinds_text,
    list_images,
    listing_notes,
    names_text,
    sort_files,
)
from exporter.validation.class_labels import (
    KnownClasses,
    LabelMatch,
    Labels,
    match_labels,
    require_one_each,
    spelled,
)
from exporter.validation.image_set import ImagePairs, ImageSet, image_files
from exporter.validation.tables import Row, read_table

_SPLITS = (
    "val(id(ation)?)?|minival",
    "dev|eval(uation)?|hold ?out|held ?out",
    "test(ing)?",
    "train(ing|val)?",
)
"""How people call the parts of a data set, as regular expressions; the part to measure on comes first."""

_SPLIT_ENDS = "( ?(set|data|images|imgs|split|[0-9]+))*"


def open_images(path: Path, classes: KnownClasses | None) -> ImageSet:
    """A folder of images, or a CSV file that lists them.

    Args:
        path: folder or `.csv`.
        classes: that labels are matched with; None leaves labels out if there are any.

    Raises:
        UsageError: neither of the two, nothing in it, or labels that are not the model's.
    """
    if path.is_dir():
        return image_folder(path, classes)
    if not path.exists():
        raise UsageError(f"data: there is no {path}: expected a folder of images, or a CSV file")
    if path.suffix.lower() != ".csv":
        raise UsageError(f"data: {path} is neither a folder of images nor a .csv file of image,label")
    return image_csv(path, classes)


def image_folder(folder: Path, classes: KnownClasses | None) -> ImageSet:
    """One sub-folder per class, as in ImageNet; or just images.

    Which class a sub-folder is, its name says (`class_labels`). Links are followed; what is hidden or stray is skipped
    with a note, and so are folders without images.

    Args:
        folder: without sub-folders, or with one per class.
        classes: that the sub-folders are matched with; None takes all images at any depth, without labels.

    Raises:
        UsageError: no such folder, no images, images beside the class folders, folders that are parts of a data set
            (train, val) rather than classes or hold several, folders that are no classes of the model, or class
            folders inside those of other classes.
    """
    if not folder.is_dir():
        raise UsageError(f"data: expected a folder of images, got {folder}")
    if classes is None:
        return _plain(folder, list_images(folder))
    beside, listings = _class_folders(folder, classes)
    whole = join_listings((beside, *listings.values()))
    full = {name: listing.images for name, listing in listings.items() if listing.images}
    notes = (*listing_notes(whole), *_empty_notes(name for name in listings if name not in full))
    if not full:
        return _plain(folder, whole, notes)
    if beside.images:
        raise UsageError(
            f"data: {folder} holds images ({beside.images[0].name}) beside sub-folders ({next(iter(full))}): move "
            "them into the folder of their class, or ask for no labels with --unlabelled"
        )
    return _labelled(folder, full, classes, notes)


def image_csv(path: Path, classes: KnownClasses | None) -> ImageSet:
    """Images listed under the header `image,label`: paths as seen from the file, and names or indices of classes.

    An image that is listed again with the same label counts once, with a note.

    Args:
        path: UTF-8.
        classes: that the labels are matched with; None leaves labels out, a column of images is then enough.

    Raises:
        UsageError: not such a file, a missing image, a label that is not the model's, or an image with two of them;
            with the line.
    """
    columns = ("image",) if classes is None else ("image", "label")
    rows = read_table(path, columns, exact=classes is not None)
    files = {row.line: _existing(path, row) for row in rows}
    match, index_of = None, dict[str, int]()
    if classes is not None:
        places = {row.values[1]: f"{quoted(path)}, line {row.line}" for row in reversed(rows)}
        ordered = {row.values[1]: places[row.values[1]] for row in rows}
        match = match_labels(Labels(places=ordered, kind="labels", data=quoted(path)), classes)
        index_of = match.index_of()
    kept, notes = _each_once(path, rows, index_of)
    return image_files(
        path.name,
        [files[row.line] for row in kept],
        [row.values[0] for row in kept],
        labels=None if classes is None else [index_of[row.values[1]] for row in kept],
        match=match,
        notes=(*notes, *(_from_one_notes(match, "label") if match else ())),
    )


def image_pairs(path: Path) -> ImagePairs:
    """Images and captions listed under the header `image,caption`.

    An image may have several rows, one for each caption; equal captions are one text. The images' fingerprint does
    not hold the captions.

    Raises:
        UsageError: not such a file, a missing image, or an empty caption; with the line.
    """
    rows = read_table(path, ("image", "caption"))
    first = {_place(path, row): row for row in reversed(rows)}
    images = {place: first[place] for place in (_place(path, row) for row in rows)}
    texts = tuple(dict.fromkeys(row.values[1] for row in rows))
    of_image = {place: position for position, place in enumerate(images)}
    of_text = {text: position for position, text in enumerate(texts)}
    pairs = dict.fromkeys((of_image[_place(path, row)], of_text[row.values[1]]) for row in rows)
    files = [_existing(path, row) for row in images.values()]
    images_set = image_files(path.name, files, [row.values[0] for row in images.values()])
    return ImagePairs(images=images_set, texts=texts, pairs=tuple(pairs))


def _class_folders(folder: Path, classes: KnownClasses) -> tuple[Listing, dict[str, Listing]]:
    """What lies beside the sub-folders, and what each of them holds; a stray one may be called like a class."""
    entries = sorted(folder.iterdir())
    named = classes.called(entry.name for entry in entries)
    folders = [entry for entry in entries if entry.is_dir()]
    strays = [entry.name for entry in folders if is_stray(entry.name) and not named[entry.name]]
    files = sort_files(set(entries).difference(folders))
    beside = join_listings((files, Listing(skipped=tuple(strays))))
    return beside, {entry.name: list_images(entry) for entry in folders if entry.name not in strays}


def _plain(folder: Path, listing: Listing, notes: tuple[str, ...] | None = None) -> ImageSet:
    """The images of a folder, without labels."""
    if not listing.images:
        if listing.other_kinds:
            raise UsageError(
                f"data: {folder} holds no images that are read here, but {kinds_text(listing.other_kinds)}: "
                "convert them to PNG or JPEG"
            )
        raise UsageError(f"data: {folder} holds no images ({', '.join(sorted(SUFFIXES))})")
    notes = listing_notes(listing) if notes is None else notes
    return image_files(folder.resolve().name, listing.images, _names(folder, listing.images), notes=notes)


def _names(folder: Path, paths: Sequence[Path]) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in paths]


def _labelled(
    folder: Path, full: Mapping[str, Sequence[Path]], classes: KnownClasses, notes: tuple[str, ...]
) -> ImageSet:
    _refuse_splits(folder, list(full), classes)
    labels = Labels(
        places={name: quoted(folder / name) for name in full}, kind="folders", data=quoted(folder)
    )
    match = match_labels(labels, classes)
    require_one_each(labels, match)
    _refuse_nested(folder, full, match, classes)
    found = [(path, each.index) for each in match.classes for path in full[each.label]]
    paths = [path for path, _ in found]
    return image_files(
        folder.resolve().name,
        paths,
        _names(folder, paths),
        labels=[index for _, index in found],
        match=match,
        notes=(*notes, *_from_one_notes(match, "folder")),
    )


def _refuse_splits(folder: Path, names: Sequence[str], classes: KnownClasses) -> None:
    """Refuse parts of a data set, unless the model has classes of these names.

    One such name among others may be a class: trains are what some models are about.
    """
    named = classes.called(names)
    kinds = {name: _split_kind(name) for name in names if not named[name]}
    splits = sorted((kind, name) for name, kind in kinds.items() if kind is not None)
    if len(splits) > 1 or (splits and len(names) == 1):
        shown, best = names_text(name for _, name in splits), shlex.quote(str(folder / splits[0][1]))
        raise UsageError(
            f"data: the folders of {quoted(folder)} ({shown}) are parts of a data set, not classes; give one of them, "
            f"such as --data {best}"
        )


def _refuse_nested(
    folder: Path, full: Mapping[str, Sequence[Path]], match: LabelMatch, classes: KnownClasses
) -> None:
    """Refuse parts of a data set, and other classes, among the folders inside class folders."""
    inside = {name: _folders_between(folder / name, images) for name, images in full.items()}
    named = classes.called(sorted(set().union(*inside.values())))
    for each in match.classes:
        other = next(
            (name for name in inside[each.label] if named[name] and each.index not in named[name]), None
        )
        if other is not None:
            raise UsageError(
                f'data: {quoted(folder / each.label)} holds a folder "{quoted(other)}", which is the name of another '
                "class: move the folder of each class beside the others, or list the images in a CSV file"
            )
    kinds = {
        kind: f"{label}/{name}"
        for label, names in inside.items()
        for name in names
        if (kind := None if named[name] else _split_kind(name)) is not None
    }
    if len(kinds) > 1:
        shown, best = names_text(kinds[kind] for kind in sorted(kinds)), kinds[min(kinds)].rpartition("/")[2]
        raise UsageError(
            f"data: the class folders of {quoted(folder)} hold several parts of a data set ({shown}), which are not "
            f"measured together; give a folder of one part with the classes in it, such as {quoted(best)}/CLASS, or "
            "list the images of one part in a CSV file"
        )


def _folders_between(folder: Path, images: Sequence[Path]) -> dict[str, None]:
    """Names of the folders, at any depth, on the way to some images."""
    places = dict.fromkeys(image.parent for image in images)
    return dict.fromkeys(name for place in places for name in place.relative_to(folder).parts)


def _from_one_notes(match: LabelMatch, what: str) -> tuple[str, ...]:
    """That indices look as if they were counted from 1, as the model does not."""
    indices = sorted({each.index for each in match.classes})
    if match.matched_by != "index" or len(indices) < 2 or indices != list(range(1, len(indices) + 1)):
        return ()
    return (f"no {what} 0: if yours count from 1, give --classes FILE",)


def _split_kind(name: str) -> int | None:
    return next(
        (
            kind
            for kind, words in enumerate(_SPLITS)
            if re.fullmatch(f"({words}){_SPLIT_ENDS}", spelled(name))
        ),
        None,
    )


def _empty_notes(names: Iterable[str]) -> tuple[str, ...]:
    empty = list(names)
    return (f"skipped, as without images: {names_text(empty)}",) if empty else ()


def _each_once(
    table: Path, rows: Sequence[Row], index_of: Mapping[str, int]
) -> tuple[list[Row], tuple[str, ...]]:
    """The first row of every image, and a note on the others.

    Raises:
        UsageError: an image has two labels.
    """
    first: dict[str, Row] = {}
    again = []
    for row in rows:
        known = first.setdefault(_place(table, row), row)
        if known is row:
            continue
        if index_of and index_of[known.values[1]] != index_of[row.values[1]]:
            raise UsageError(
                f'data: {quoted(table)}, line {row.line}: {quoted(row.values[0])} has the label "'
                f'{quoted(row.values[1])}", and in line {known.line} "{quoted(known.values[1])}"; keep one of them'
            )
        again.append(row)
    rows_text = f"{len(again)} row{'s' if len(again) > 1 else ''}"
    notes = (
        (f"{rows_text} of images listed before left out, the first in line {again[0].line}",) if again else ()
    )
    return list(first.values()), notes


def _place(table: Path, row: Row) -> str:
    """Where an image lies, however it is written; a link stays a file of its own."""
    return os.path.abspath(table.parent / row.values[0])


def _existing(table: Path, row: Row) -> Path:
    path = table.parent / row.values[0]
    if not os.path.isfile(path):
        raise UsageError(f"{quoted(table)}, line {row.line}: there is no image {quoted(path)}")
    return path
