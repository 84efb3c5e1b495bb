"""What the command lines of several tools share: the exit status of an error, and the arguments of measurements."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from exporter.errors import ExportError


def exit_status(run: Callable[[], object]) -> int:
    """Run a tool; its exit status, after the one line of an error."""
    try:
        run()
    except ExportError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    return 0


def measurement_parser(description: str | None, *positional: str) -> argparse.ArgumentParser:
    """The command line of a tool that measures methods at several r, row by row, into a JSON file.

    Args:
        description: the tool's docstring.
        positional: arguments before the methods.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in positional:
        parser.add_argument(name)
    parser.add_argument("methods", nargs="+", metavar="METHOD[:OPTION=VALUE,...]")
    parser.add_argument("--every", type=int, default=1, help="take every n-th photo or text")
    parser.add_argument("--r", default="8", help="several as a comma list")
    parser.add_argument("--out", type=Path, required=True)
    return parser
