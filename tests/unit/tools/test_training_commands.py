"""What is true of both training tools: what ships says how it was made, and a check holds it to that."""

import json
from pathlib import Path
from types import ModuleType

import pytest
from safetensors import safe_open

from exporter.errors import GateError
from exporter.models.shipped.clip_digits import CLIP_DIGITS_WEIGHTS
from exporter.models.shipped.digits import VIT_DIGITS_WEIGHTS
from tools import train_clip_digits, train_vit_digits

TOOLS = [pytest.param(train_vit_digits, id="vit_digits"), pytest.param(train_clip_digits, id="clip_digits")]


def test_shipped_weights_record_the_default_seed_and_recipe_and_nothing_else() -> None:
    for weights, described in (
        (VIT_DIGITS_WEIGHTS, train_vit_digits.describe(0, train_vit_digits.TrainingRecipe())),
        (CLIP_DIGITS_WEIGHTS, train_clip_digits.describe(0, train_clip_digits.ContrastiveRecipe())),
    ):
        with safe_open(weights, framework="pt") as file:
            recorded = file.metadata()
        assert recorded == described
        assert set(json.loads(recorded["training"])) == {"seed", "split", "recipe"}


@pytest.mark.parametrize("tool", TOOLS)
def test_command_refuses_a_missing_folder_in_one_line(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = tool.main(["--out", str(tmp_path / "absent" / "weights.safetensors"), "--steps", "1"])

    assert status == 2
    assert capsys.readouterr().err.strip().count("\n") == 0


@pytest.mark.parametrize("tool", TOOLS)
def test_check_fails_when_the_recipe_is_not_the_shipped_one(
    tool: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tool.main(["--check", "--steps", "1"]) == 6
    assert "digits.safetensors was made by another recipe" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("tool", "shipped", "retrained"),
    [
        pytest.param(train_vit_digits, 0.969, 0.975, id="vit_digits: shipped too low"),
        pytest.param(train_vit_digits, 0.975, 0.969, id="vit_digits: retrained too low"),
        pytest.param(train_vit_digits, 0.991, 0.980, id="vit_digits: too far apart"),
        pytest.param(train_clip_digits, 0.959, 0.965, id="clip_digits: shipped too low"),
        pytest.param(train_clip_digits, 0.965, 0.959, id="clip_digits: retrained too low"),
        pytest.param(train_clip_digits, 0.991, 0.970, id="clip_digits: too far apart"),
    ],
)
def test_check_refuses_accuracies_that_are(tool: ModuleType, shipped: float, retrained: float) -> None:
    with pytest.raises(GateError, match="train with --out"):
        tool.require_close(shipped, retrained)


def test_check_accepts_accuracies_within_its_tolerance() -> None:
    train_vit_digits.require_close(0.985, 0.980)
    train_clip_digits.require_close(0.980, 0.965)
