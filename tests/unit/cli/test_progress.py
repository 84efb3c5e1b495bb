"""Progress by stage."""

import io

import pytest
from rich.console import Console

from exporter.cli.progress import observer


def console() -> Console:
    return Console(file=io.StringIO(), width=200)


def shown(target: Console) -> str:
    assert isinstance(target.file, io.StringIO)
    return target.file.getvalue()


def test_a_stage_is_one_line_with_time_and_outcome() -> None:
    target = console()

    with observer(target, quiet=False)("capture") as note:
        note("261 nodes")

    (line,) = shown(target).splitlines()
    assert line.split() == ["✓", "capture", "0.0", "s", "261", "nodes"]


def test_a_stage_that_fails_is_not_ticked_off() -> None:
    target = console()

    with pytest.raises(ValueError, match="no"), observer(target, quiet=False)("capture"):
        raise ValueError("no")

    assert "✓" not in shown(target)


def test_quiet_says_nothing() -> None:
    target = console()

    with observer(target, quiet=True)("capture") as note:
        note("261 nodes")

    assert shown(target) == ""


def test_outcomes_are_text_and_not_markup() -> None:
    target = console()

    with observer(target, quiet=False)("bundle") as note:
        note("artifacts/[red]/x[/red]")

    assert "artifacts/[red]/x[/red]" in shown(target)
