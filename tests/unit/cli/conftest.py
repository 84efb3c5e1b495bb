"""What click makes of the words of a command line."""

from collections.abc import Callable
from typing import Any

import click
from click.testing import CliRunner

Options = Callable[[Callable[..., None]], Callable[..., None]]


def given(options: Options, *words: str) -> dict[str, Any]:
    """The parameters of a command with these options."""
    found: dict[str, Any] = {}

    def command(**parameters: Any) -> None:
        found.update(parameters)

    result = CliRunner().invoke(click.command()(options(command)), list(words))
    assert result.exit_code == 0, result.output
    return found
