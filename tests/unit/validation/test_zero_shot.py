"""Prompt ensembles and zero-shot logits against plain Python."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from exporter.errors import InternalError, UsageError
from exporter.validation.accuracy import hits
from exporter.validation.zero_shot import class_embeddings, zero_shot_logits

Array = npt.NDArray[Any]

DIGITS = ("zero", "one", "two")
TEMPLATES = ("a scan of the digit {}", "the number {}.", "{}")


def letters(prompts: Sequence[str]) -> Array:
    """A text tower: how often each letter of the alphabet is in the prompt."""
    alphabet = "abcdefghijklmnopqrstuvwxyz"
    return np.asarray([[prompt.count(letter) for letter in alphabet] for prompt in prompts], np.float32)


def table(rows: dict[str, list[float]]) -> Callable[[Sequence[str]], Array]:
    return lambda prompts: np.asarray([rows[prompt] for prompt in prompts], np.float32)


def unit(row: Sequence[float]) -> list[float]:
    length = math.sqrt(sum(value * value for value in row))
    return [value / length for value in row]


def ensemble(prompts: Sequence[str]) -> list[float]:
    """The definition, one number at a time."""
    rows = [unit([float(value) for value in letters([prompt])[0]]) for prompt in prompts]
    return unit([sum(column) / len(rows) for column in zip(*rows, strict=True)])


def test_class_is_the_mean_of_its_unit_prompts_of_unit_length() -> None:
    found = class_embeddings(letters, DIGITS, TEMPLATES)

    expected = [ensemble([f"a scan of the digit {name}", f"the number {name}.", name]) for name in DIGITS]
    assert found == pytest.approx(np.asarray(expected), abs=1e-12)


def test_long_prompt_counts_no_more_than_a_short_one() -> None:
    embed = table({"a cat": [3.0, 0.0], "cat": [0.0, 1.0]})

    found = class_embeddings(embed, ["cat"], ["a {}", "{}"])

    assert found.tolist()[0] == pytest.approx([math.sqrt(0.5), math.sqrt(0.5)])


def test_many_prompts_are_embedded_in_bounded_calls_in_order() -> None:
    calls: list[list[str]] = []
    names, templates = (
        [f"class {number}" for number in range(130)],
        [f"{number} {{}}" for number in range(20)],
    )

    def embed(prompts: Sequence[str]) -> Array:
        calls.append(list(prompts))
        return letters(prompts) + 1

    found = class_embeddings(embed, names, templates)

    assert max(map(len, calls)) <= 1024
    assert [prompt for call in calls for prompt in call] == [
        template.format(name) for name in names for template in templates
    ]
    assert found.shape == (130, 26)


def test_more_templates_than_fit_one_call_still_make_one_class() -> None:
    templates = [f"{number} {{}}" for number in range(1500)]

    assert class_embeddings(letters, ["ab"], templates).tolist()[0][:3] == pytest.approx(unit([1, 1, 0]))


def test_other_braces_are_text() -> None:
    embed = table({"a {0.x} {}, {b}": [1.0, 2.0]})

    assert class_embeddings(embed, ["{0.x} {}"], ["a {}, {b}"]).shape == (1, 2)


def test_logits_are_cosines() -> None:
    images = np.asarray([[2.0, 0.0], [3.0, 4.0], [0.0, 0.0]], np.float32)
    classes = np.asarray([[1.0, 0.0], [0.6, 0.8]])

    found = zero_shot_logits(images, classes)

    assert found == pytest.approx(np.asarray([[1.0, 0.6], [0.6, 1.0], [0.0, 0.0]]))


def test_image_of_a_prompt_is_classified_as_it_is_named() -> None:
    images = letters(["the digit two on paper", "zero is a digit", "one more digit"])

    found = hits(zero_shot_logits(images, class_embeddings(letters, DIGITS, ["{}"])), np.asarray([2, 0, 1]))

    assert found.first.tolist() == [True, True, True]


def test_swapped_class_names_swap_the_answers() -> None:
    classes = class_embeddings(letters, DIGITS, TEMPLATES)
    swapped = class_embeddings(letters, ("one", "zero", "two"), TEMPLATES)
    images = letters(["zero", "one", "two"])

    assert zero_shot_logits(images, swapped) == pytest.approx(zero_shot_logits(images, classes)[:, [1, 0, 2]])


def test_prompt_that_is_not_finite_leaves_no_right_answer() -> None:
    embed = table({"a": [1.0, 0.0], "b": [np.nan, 1.0]})
    logits = zero_shot_logits(np.eye(2), class_embeddings(embed, ["a", "b"], ["{}"]))

    assert not hits(logits, np.asarray([0, 1])).five.any()


@pytest.mark.parametrize(("names", "templates"), [((), TEMPLATES), (DIGITS, ())])
def test_nothing_to_prompt_with_is_refused(names: tuple[str, ...], templates: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match=f"got {len(names)} and {len(templates)}"):
        class_embeddings(letters, names, templates)


def test_towers_of_different_widths_are_refused() -> None:
    with pytest.raises(UsageError, match=r"\(images, 26\).*got \(2, 4\)"):
        zero_shot_logits(np.ones((2, 4)), class_embeddings(letters, DIGITS, TEMPLATES))


def test_tower_that_loses_prompts_is_a_broken_promise() -> None:
    with pytest.raises(InternalError, match="3 prompts"):
        class_embeddings(lambda prompts: letters(prompts)[:-1], DIGITS, ["{}"])
