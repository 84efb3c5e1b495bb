"""Names of classes that the libraries know: ImageNet's, and those that a configuration lists.

Where it stands on the road: the sources put them into a `LoadedModel`, where labels of images are matched with them.
"""

from collections.abc import Mapping
from typing import Any

from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset

from exporter.models.loaded import ClassNames


def imagenet_names(count: int) -> ClassNames | None:
    """The classes of the part of ImageNet that has so many: the words of each, then its synset (`n01440764`).

    Args:
        count: Columns of the logits of weights that are known to be trained on ImageNet.

    Returns:
        None if there is no such part.
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
    """What is said of a user's weights that have as many classes as ImageNet."""
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
        None if it lists none, or not exactly so many.
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


def _parts(description: Any) -> list[str]:
    return description.split(", ") if isinstance(description, str) else []


def _spellings(*words: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word.strip() for word in words if word.strip()))
