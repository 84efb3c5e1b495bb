"""Which targets there are, and what asking for another one says."""

from pathlib import Path

import pytest

from exporter.errors import TargetUnavailableError, UsageError
from exporter.recipe.vocabulary import TARGETS as RECIPE_TARGETS
from exporter.targets import PLANNED, TARGETS, TensorSpec, open_runner, target

SPEC = TensorSpec(name="images", dtype="float32", shape=(1, 2))


def test_onnx_is_there() -> None:
    assert target("onnx").name == "onnx"


@pytest.mark.parametrize("name", PLANNED)
def test_planned_targets_are_not_available_yet(name: str) -> None:
    with pytest.raises(TargetUnavailableError, match=name):
        target(name)
    with pytest.raises(TargetUnavailableError, match=name):
        open_runner(name, Path("model"), input=SPEC, outputs=(SPEC,))


@pytest.mark.parametrize("name", ["onxn", "ONNX", "", "../onnx", "target"])
def test_unknown_targets_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="expected one of onnx"):
        target(name)


def test_recipes_may_name_exactly_these() -> None:
    assert set(RECIPE_TARGETS) == {*TARGETS, *PLANNED}
