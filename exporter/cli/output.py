"""What every command prints: progress on stderr, and its result as text or as one JSON document on stdout."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from exporter.cli.terminal import console
from exporter.errors import ExportError

if TYPE_CHECKING:
    from rich.console import Console

    from exporter.pipeline import Observer


@dataclass(frozen=True, kw_only=True)
class Output:
    """What was asked for by `--json` and `--quiet`."""

    as_json: bool
    quiet: bool

    @property
    def observe(self) -> "Observer":
        """A progress display on stderr, silent with `--json` or `--quiet`."""
        from exporter.cli.progress import observer

        return observer(console(stderr=True), quiet=self.quiet or self.as_json)

    def show(self, tree: Callable[[], object], text: Callable[["Console"], object]) -> None:
        """Print a result.

        Args:
            tree: makes the JSON document.
            text: prints the result for people; not called with `--quiet`.
        """
        from exporter.cli.summary import print_json

        if self.as_json:
            print_json(tree())
        elif not self.quiet:
            text(console())


def output_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--json`, `--quiet` and `--debug`; the command gets an `Output`."""

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
    @click.option("--quiet", is_flag=True, help="Print no progress and no summary.")
    @click.option("--debug", is_flag=True, help="Show the traceback of a failure.")
    @wraps(command)
    def with_output(*, as_json: bool, quiet: bool, debug: bool, **given: Any) -> None:
        command(output=Output(as_json=as_json, quiet=quiet), **given)

    return with_output


def end_with(failures: Mapping[str, ExportError]) -> None:
    """Print a line for everything that failed, and exit with the highest of the statuses."""
    for failure in failures.values():
        click.echo(f"error: {failure}", err=True)
    if failures:
        click.get_current_context().exit(max(failure.exit_status for failure in failures.values()))
