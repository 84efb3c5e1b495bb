"""Failures as statuses and lines, whatever is thrown below."""

import json

import pytest

from exporter.cli import main
from exporter.errors import (
    BundleError,
    ExportError,
    GateError,
    InternalError,
    ModelUnavailableError,
    ParityError,
    RecipeError,
    TargetUnavailableError,
    UnsupportedGraphError,
    UsageError,
    WeightsError,
)

STATUSES: list[tuple[BaseException, int]] = [
    (UsageError("no"), 2),
    (RecipeError("no"), 2),
    (ModelUnavailableError("no"), 3),
    (WeightsError("no"), 3),
    (UnsupportedGraphError("no"), 4),
    (ParityError("no"), 5),
    (GateError("no"), 6),
    (TargetUnavailableError("no"), 7),
    (ModuleNotFoundError("no", name="onnx_ir"), 7),
    (ModuleNotFoundError("no", name="a_library_of_a_model"), 70),
    (ModuleNotFoundError("no", name="exporter.gone"), 70),
    (BundleError("no"), 8),
    (InternalError("no"), 70),
    (ValueError("several\nlines\r\nof text"), 70),
    (RecursionError("no"), 70),
    (MemoryError(), 2),
    (PermissionError(13, "Permission denied", "mine"), 2),
    (OSError(28, "No space left on device"), 2),
    (KeyboardInterrupt(), 130),
]


@pytest.mark.parametrize(("error", "status"), STATUSES, ids=lambda value: type(value).__name__)
def test_every_failure_is_a_status_and_one_line(
    error: BaseException, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr("exporter.pipeline.validate", fail)

    assert main(["validate", "anything", "--json"]) == status

    captured = capsys.readouterr()
    (line,) = [line for line in captured.err.splitlines() if line]
    assert line.startswith("error: ")
    assert json.loads(captured.out) == {"error": line.removeprefix("error: "), "exit_status": status}


def test_unexpected_failures_ask_for_a_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise KeyError("lost")

    monkeypatch.setattr("exporter.pipeline.validate", fail)

    assert main(["validate", "anything"]) == 70
    assert "please report this, with --debug" in capsys.readouterr().err

    assert main(["validate", "anything", "--debug"]) == 70
    assert "Traceback" in capsys.readouterr().err


def test_statuses_of_the_contract_are_those_of_the_errors() -> None:
    found = {kind.__name__: kind.exit_status for kind in ExportError.__subclasses__()}

    assert found == {
        "UsageError": 2,
        "RecipeError": 2,
        "ModelUnavailableError": 3,
        "WeightsError": 3,
        "UnsupportedGraphError": 4,
        "ParityError": 5,
        "GateError": 6,
        "TargetUnavailableError": 7,
        "BundleError": 8,
    }


@pytest.mark.parametrize(
    "given",
    [
        pytest.param("x" * 5000, id="long"),
        pytest.param("a b " * 1250, id="long, with spaces"),
        pytest.param(f"--r={'9' * 5000}", id="long value"),
        pytest.param("\udcff" * 40, id="bytes"),
        pytest.param("a\n\tb\x1b[2J", id="control characters"),
    ],
)
@pytest.mark.parametrize("command", ["export", "run", "validate", "bench", "report", "lint", "inspect"])
def test_no_argument_is_repeated_at_length(
    command: str, given: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--for", "ort"] if command == "lint" else []

    status = main([command, given, *words, "--json"])

    captured = capsys.readouterr()
    assert status in (2, 3, 8)
    (line,) = captured.err.splitlines()
    assert len(line) < 400
    assert line.isprintable()
    assert json.loads(captured.out)["exit_status"] == status
