"""Names of classes that the libraries know: ImageNet's, and those that a configuration lists.

The sources put them into a `LoadedModel`; labels of images are matched with them.
"""

import re
from collections.abc import Mapping
from typing import Any

from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

from exporter.models.loaded import ClassNames

# What transformers writes where the classes were not named.
_PLACEHOLDER = re.compile(r"LABEL_\d+")


def imagenet_names(count: int) -> ClassNames | None:
    """The classes of the subset of ImageNet of this size: the words of each, then its synset (`n01440764`).

    Args:
        count: Columns of the logits of weights that are known to be trained on ImageNet.

    Returns:
        None if there is no such subset.
    """
    subset = infer_imagenet_subset({"num_classes": count})
    if subset is None:
        return None
    info: Any = ImageNetInfo(subset)
    descriptions: list[str] = info.label_descriptions()
    synsets: list[str] = info.label_names()
    if len(synsets) != count:
        return None
    return tuple(
        _spellings(*description.split(", "), synset)
        for description, synset in zip(descriptions, synsets, strict=True)
    )


def unnamed_note(count: int) -> str:
    """The note on a user's weights that have as many classes as ImageNet."""
    return (
        f"the weights have {count} classes and do not name them: they are not taken for those of ImageNet; "
        "--classes FILE names them"
    )


def listed_names(config: Mapping[str, Any], count: int) -> ClassNames | None:
    """The classes that a configuration of timm lists.

    Args:
        config: With `label_names`, a list or a dictionary by index, and perhaps `label_descriptions` by name.
        count: Columns of the logits.

    Returns:
        None if it lists none, or another number.
    """
    names = config.get("label_names")
    if isinstance(names, Mapping):
        by_index = {str(index): name for index, name in names.items()}
        names = [by_index.get(str(index)) for index in range(count)] if len(by_index) == count else None
    if not isinstance(names, list | tuple) or not count or len(names) != count:
        return None
    if not all(isinstance(name, str) and name.strip() for name in names):
        return None
    descriptions = config.get("label_descriptions")
    described = descriptions if isinstance(descriptions, Mapping) else {}
    return tuple(_spellings(*_parts(described.get(name)), name) for name in names)


def joined(names: tuple[str, ...], others: ClassNames | None) -> ClassNames:
    """Names that are shown, each followed by further spellings of the same class."""
    if others is None or len(others) != len(names):
        return tuple((name,) for name in names)
    return tuple(_spellings(name, *more) for name, more in zip(names, others, strict=True))


def labelled_names(config: Any, count: int) -> tuple[ClassNames | None, tuple[str, ...]]:
    """The classes in `id2label` of a configuration of transformers.

    Args:
        config: Of the architecture.
        count: Columns of the logits.

    Returns:
        For each index the label and its parts between commas, as ImageNet's have them; None where the checkpoint
        does not say. And a note, where it says it for other indices than there are.
    """
    labels = {int(index): str(label).strip() for index, label in (config.id2label or {}).items()}
    if not labels or all(_PLACEHOLDER.fullmatch(label) for label in labels.values()):
        return None, ()
    if set(labels) != set(range(count)) or not all(labels.values()):
        named = len([label for index, label in labels.items() if 0 <= index < count and label])
        return None, (f"id2label of config.json names {named} of {count} classes: it is left out",)
    return tuple(_spellings(labels[index], *labels[index].split(",")) for index in range(count)), ()


def _parts(description: Any) -> list[str]:
    return description.split(", ") if isinstance(description, str) else []


def _spellings(*words: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word.strip() for word in words if word.strip()))
