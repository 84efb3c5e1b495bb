"""The options that print graphs between passes, as text."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from exporter.errors import UsageError, quoted

_AFTER, _ALL = "--print-after", "--print-ir-after-all"


def print_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--print-after` and `--print-ir-after-all`; `printed_graphs` reads them."""
    for option in (
        click.option(_ALL, metavar="DIR", help="Write the graph after every pass into a new folder."),
        click.option(
            _AFTER,
            metavar="PASS",
            multiple=True,
            help="Print the graph after a pass on stderr; repeatable.",
        ),
    ):
        command = option(command)
    return command


def asks_for_graphs(given: Mapping[str, Any]) -> bool:
    """Whether one of the options was given."""
    return bool(given["print_after"] or given["print_ir_after_all"])


@contextmanager
def printed_graphs(given: Mapping[str, Any]) -> Iterator[None]:
    """Print the graph after each pass that runs inside the `with` block, as the options say.

    Args:
        given: the command's options.

    Raises:
        UsageError: there is no pass of this name, or the folder cannot be written or is not empty.
    """
    if not asks_for_graphs(given):
        yield
        return
    from exporter.graph import listening
    from exporter.rewrite import PASS_NAMES
    from exporter.rewrite.pipeline import check_name

    for name in given["print_after"]:
        check_name(name, PASS_NAMES, _AFTER)
    printer = _Printer(given["print_after"], given["print_ir_after_all"])
    with listening(printer.print):
        yield
    for name in given["print_after"]:
        if name not in printer.seen:
            click.echo(f"{_AFTER}: {name} did not run", err=True)


class _Printer:
    """Prints graphs as asked, and numbers the files."""

    def __init__(self, names: tuple[str, ...], folder: str | None) -> None:
        self.seen: list[str] = []
        self._names = names
        self._folder = None if folder is None else _new_folder(Path(folder))

    def print(self, graph_pass: Any, graph_module: Any) -> None:
        """Called after every pass."""
        name = graph_pass.name
        self.seen.append(name)
        if name not in self._names and self._folder is None:
            return
        from exporter.rewrite.graph_text import graph_text

        text = graph_text(graph_module)
        if name in self._names:
            click.echo(f"graph after {name}:\n{text}", err=True)
        if self._folder is not None:
            with _writing(self._folder):
                (self._folder / f"{len(self.seen):03}_{name}.txt").write_text(text, encoding="utf-8")


def _new_folder(folder: Path) -> Path:
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UsageError(f"{_ALL}: expected a new or an empty folder, got {quoted(str(folder))}")
    return folder


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(f"{_ALL}: {quoted(str(folder))} cannot be written: {error.strerror}") from None
