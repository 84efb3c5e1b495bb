"""The class names that a checkpoint of transformers carries: `id2label` of its configuration."""

import re
from typing import Any

from exporter.models.loaded import ClassNames

# What transformers writes where nobody named the classes.
_PLACEHOLDER = re.compile(r"LABEL_\d+")


def read_class_names(config: Any, count: int) -> tuple[ClassNames | None, tuple[str, ...]]:
    """The names of the columns of the logits, in order.

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
    return tuple(_spellings(labels[index]) for index in range(count)), ()


def _spellings(label: str) -> tuple[str, ...]:
    parts = (part.strip() for part in label.split(","))
    return tuple(dict.fromkeys((label, *(part for part in parts if part))))
