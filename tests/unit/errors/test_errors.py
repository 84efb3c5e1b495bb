"""The error tree: every failure that a user can act on has its exit status and a message of one line."""

import pytest

from exporter import errors
from exporter.errors import ExportError, InternalError, nearest


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        pytest.param(errors.UsageError, 2, id="usage"),
        pytest.param(errors.RecipeError, 2, id="recipe"),
        pytest.param(errors.ModelUnavailableError, 3, id="model"),
        pytest.param(errors.WeightsError, 3, id="weights"),
        pytest.param(errors.UnsupportedGraphError, 4, id="graph"),
        pytest.param(errors.ParityError, 5, id="parity"),
        pytest.param(errors.GateError, 6, id="gate"),
        pytest.param(errors.TargetUnavailableError, 7, id="target"),
        pytest.param(errors.BundleError, 8, id="bundle"),
    ],
)
def test_exit_statuses_are_those_of_the_contract(kind: type[ExportError], status: int) -> None:
    assert kind("what went wrong").exit_status == status


def test_interrupted_command_ends_with_130() -> None:
    assert errors.EXIT_INTERRUPTED == 130


def test_message_over_several_lines_becomes_one_line() -> None:
    assert str(ExportError("weights: expected\n  12 keys,\tgot 11\n")) == "weights: expected 12 keys, got 11"


def test_internal_error_is_nothing_the_user_did_and_asks_for_a_report() -> None:
    error = InternalError("no merge point")

    assert not isinstance(error, ExportError)
    assert error.exit_status == 70
    assert str(error) == "internal error: no merge point (please report this)"


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        pytest.param("tomee", ' Did you mean "tome"?', id="close to one"),
        pytest.param("pitom", ' Did you mean "pitome"?', id="closest of two"),
        pytest.param("quantize", "", id="close to none"),
    ],
)
def test_nearest_suggests_only_what_is_close(word: str, hint: str) -> None:
    assert nearest(word, ["tome", "pitome"]) == hint


def test_nearest_of_no_choices_is_empty() -> None:
    assert nearest("tome", iter(())) == ""
