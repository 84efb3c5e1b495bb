"""Command-line options as the axes and the goal of a sweep."""

import pytest

from exporter.cli.sweep_options import sweep_axes, sweep_options
from exporter.errors import UsageError
from exporter.pipeline import Goal
from exporter.sweep import Axes
from tests.unit.cli.conftest import given


def parsed(*words: str) -> tuple[Axes, Goal | None, dict[str, object]]:
    """What `sweep_axes` makes of the words of a command line."""
    return sweep_axes(given(sweep_options, *words))


def test_r_alone_is_a_grid_of_the_defaults() -> None:
    axes, goal, shared = parsed("--r", "0,4, 8")

    assert (list(axes.r), dict(axes.methods)) == ([0, 4, 8], {"tome": {}})
    assert (list(axes.kinds), list(axes.aligns)) == (["constant"], [1])
    assert (list(axes.precisions), list(axes.targets)) == (["fp32"], ["onnx"])
    assert goal is None
    assert shared == {}


def test_every_axis_takes_several_values() -> None:
    axes, _, _ = parsed(
        *("--r", "1,2", "--method", "tome,pitome", "--schedule", "constant", "--schedule", "decreasing"),
        *("--align", "1,8", "--precision", "fp32,fp16", "--target", "onnx,trt"),
    )

    assert list(axes.methods) == ["tome", "pitome"]
    assert (list(axes.kinds), list(axes.aligns)) == (["constant", "decreasing"], [1, 8])
    assert (list(axes.precisions), list(axes.targets)) == (["fp32", "fp16"], ["onnx", "trt"])


def test_method_options_go_to_the_methods() -> None:
    axes, _, shared = parsed("--r", "1", "--method", "pitome", "--method-option", "margin=0.5")

    assert dict(axes.methods) == {"pitome": {"margin": 0.5}}
    assert shared == {}


def test_what_all_points_share_is_no_axis() -> None:
    words = ("--r", "0", "--weights", "random", "--batch", "2", "--data", "photos", "--disable-pass", "a,b")

    assert parsed(*words)[2] == {
        "weights": "random",
        "batch": 2,
        "validate.data": "photos",
        "disable_passes": ["a", "b"],
    }


@pytest.mark.parametrize(
    ("words", "goal"),
    [
        pytest.param(["--max-drop", "0.5"], Goal(kind="max_drop", limit=0.5), id="drop"),
        pytest.param(["--max-drop", "0"], Goal(kind="max_drop", limit=0.0), id="no drop at all"),
        pytest.param(["--min-speedup", "1.5"], Goal(kind="min_speedup", limit=1.5), id="speedup"),
    ],
)
def test_goals_are_no_gates_of_the_points(words: list[str], goal: Goal) -> None:
    _, found, shared = parsed(*words)

    assert found == goal
    assert shared == {}


@pytest.mark.parametrize(
    ("words", "fact"),
    [
        pytest.param([], "neither", id="neither grid nor goal"),
        pytest.param(["--method", "tome,pitome"], "neither", id="axes without r"),
        pytest.param(["--r", "4", "--max-drop", "1"], "both", id="grid and goal"),
        pytest.param(["--max-drop", "1", "--min-speedup", "2"], "both", id="two goals"),
        pytest.param(["--max-drop", "-1"], "--max-drop", id="negative drop"),
        pytest.param(["--max-drop", "nan"], "--max-drop", id="no number for a drop"),
        pytest.param(["--min-speedup", "1"], "--min-speedup", id="no faster"),
        pytest.param(["--min-speedup", "nan"], "--min-speedup", id="no number for a speedup"),
        pytest.param(["--r", "4,x"], "--r", id="r"),
        pytest.param(["--r", ""], "--r", id="empty r"),
        pytest.param(["--r", "4", "--align", "big"], "--align", id="align"),
        pytest.param(["--r", "4", "--method", "tomee"], "--method", id="method"),
        pytest.param(["--r", "4", "--schedule", "constnat"], "--schedule", id="schedule"),
        pytest.param(["--r", "4", "--precision", "fp17"], "--precision", id="precision"),
        pytest.param(["--r", "4", "--target", "onxx"], "--target", id="target"),
    ],
)
def test_refusals_name_what_is_wrong(words: list[str], fact: str) -> None:
    with pytest.raises(UsageError, match=fact):
        parsed(*words)


def test_a_misspelt_name_is_corrected() -> None:
    with pytest.raises(UsageError, match=r"got pitom\..*pitome"):
        parsed("--r", "1", "--method", "pitom")
