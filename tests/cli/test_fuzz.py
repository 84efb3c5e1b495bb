"""A slice of `tools.fuzz`, always the same one: damaged inputs of every kind, none of which is an internal error.

Images and reports of images are left to the tool: each loads a model.
"""

from itertools import islice
from pathlib import Path

import pytest

from tools.fuzz import campaign
from tools.fuzzing.kinds import KINDS, read_bundle

ENOUGH_S = 600

CASES = {
    "recipe": 120,
    "bundle": 20,
    "sealed": 40,
    "onnx": 40,
    "text": 400,
    "pt2": 16,
    "weights": 10,
    "preprocess": 30,
}


@pytest.mark.parametrize("name", CASES)
def test_damaged_input_is_answered_in_one_line(name: str, vit_bundle: Path) -> None:
    kinds = [kind for kind in KINDS if kind.name == name]

    answers = list(islice(campaign(kinds, read_bundle(vit_bundle), seed=1, seconds=ENOUGH_S), CASES[name]))

    assert len(answers) == CASES[name]
    assert [failure.place for failure in answers if failure is not None] == []


def test_every_kind_is_in_the_slice_but_images() -> None:
    assert {kind.name for kind in KINDS} - set(CASES) == {"images"}
