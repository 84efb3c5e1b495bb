"""Zero-shot classification: class names and prompt templates to class embeddings, image embeddings to logits.

In: the text tower as a callable, and image embeddings. Out: logits for `accuracy.hits`.

Source: Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021, section 3.1.4.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from exporter.errors import InternalError, UsageError
from exporter.targets import Array
from exporter.validation.fidelity import unit_rows

_PLACE = "{}"
_PROMPTS = 1024  # prompts that are embedded in one call


def class_embeddings(
    embed: Callable[[Sequence[str]], Array], class_names: Sequence[str], templates: Sequence[str]
) -> npt.NDArray[np.float64]:
    """One embedding per class: the mean of its prompts' unit embeddings, itself of unit length (prompt ensemble).

    Args:
        embed: the text tower: prompts to (prompts, C). Called with all prompts of a class at once, or of several.
        class_names: K of them, in the order of the labels.
        templates: each with one `{}`, where the class name goes.

    Returns:
        (K, C) fp64. A class of whose prompts one is not finite is not-a-number throughout.

    Raises:
        UsageError: no class name, or no template.
    """
    if not class_names or not templates:
        raise UsageError(
            f"classes: expected at least one class name and one template, got {len(class_names)} and {len(templates)}"
        )
    at_once = max(1, _PROMPTS // len(templates))
    return np.concatenate(
        [
            _ensemble(embed, class_names[start : start + at_once], templates)
            for start in range(0, len(class_names), at_once)
        ]
    )


def zero_shot_logits(embeddings_BC: Array, classes_KC: Array) -> npt.NDArray[np.float64]:
    """Cosines of images to classes, (B, K) fp64.

    Without the model's temperature, which changes no order: fit for `accuracy.hits`, not for a softmax.

    Args:
        embeddings_BC: of images, of any length.
        classes_KC: from `class_embeddings`.

    Raises:
        UsageError: the two towers' embeddings have different widths.
    """
    if embeddings_BC.ndim != 2 or embeddings_BC.shape[1] != classes_KC.shape[1]:
        raise UsageError(
            f"classes: expected image embeddings (images, {classes_KC.shape[1]}), as the text tower gives them, "
            f"got {embeddings_BC.shape}; take both towers from one model"
        )
    return unit_rows(embeddings_BC) @ unit_rows(classes_KC).T


def _ensemble(
    embed: Callable[[Sequence[str]], Array], class_names: Sequence[str], templates: Sequence[str]
) -> npt.NDArray[np.float64]:
    prompts = [template.replace(_PLACE, name) for name in class_names for template in templates]
    embeddings = embed(prompts)
    if embeddings.ndim != 2 or len(embeddings) != len(prompts):
        raise InternalError(f"{len(prompts)} prompts were embedded as an array {embeddings.shape}")
    prompts_KTC = unit_rows(embeddings).reshape(len(class_names), len(templates), -1)
    return unit_rows(prompts_KTC.mean(axis=1))
