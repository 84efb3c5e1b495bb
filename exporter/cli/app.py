"""Parse, dispatch, and turn every failure into one line and an exit status."""

import json
import sys
import traceback
from collections.abc import Sequence

import click

from exporter.cli.commands import COMMANDS
from exporter.errors import (
    EXIT_INTERRUPTED,
    LONGEST_MESSAGE,
    LONGEST_QUOTE,
    ExportError,
    InternalError,
    TargetUnavailableError,
    machine_failure,
    one_line,
    quoted,
)
from exporter.packages import PACKAGES
from exporter.version import __version__

_EXIT_USAGE = 2
_INTERRUPTED = (
    "interrupted; a bundle is replaced as a whole or not at all, and validate, embed and sweep go on where they "
    "were"
)


class _DefaultsToExport(click.Group):
    """A group whose verb may be left out: `exporter MODEL` is `exporter export MODEL`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("--help", "-h", "--version"):
            args = ["export", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_DefaultsToExport, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="exporter %(version)s")
def app() -> None:
    """Make Vision Transformers and CLIP encoders cheaper to serve: merge tokens, emit engines, verify them."""


for _command in COMMANDS:
    app.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status.

    0 done; 2 usage or recipe; 3 model or weights not available; 4 graph not supported; 5 parity; 6 accuracy or speed;
    7 target not available; 8 bundle damaged; 70 a defect of the exporter itself; 130 interrupted.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        status = app.main(args=given, prog_name="python -m exporter", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.ctx.get_help() if error.ctx else "", file=sys.stderr)
        return _EXIT_USAGE
    except click.ClickException as error:
        return _fail(error.format_message(), _EXIT_USAGE, given)
    except (KeyboardInterrupt, click.Abort):
        return _fail(_INTERRUPTED, EXIT_INTERRUPTED, given)
    except (ExportError, InternalError) as error:
        return _fail(str(error), error.exit_status, given)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and _comes_with_the_compiler(error.name):
            message = f'{error.name} is not installed; pip install "exporter[compiler]"'
            return _fail(message, TargetUnavailableError.exit_status, given)
        if failure := machine_failure(error):
            return _fail(str(failure), failure.exit_status, given)
        message = f"internal error: {type(error).__name__}: {error} (please report this, with --debug)"
        return _fail(message, InternalError.exit_status, given)  # a defect: still one line
    return status if isinstance(status, int) else 0  # of a command that ended with `Context.exit`


def _comes_with_the_compiler(module: str | None) -> bool:
    return module in {each.name.replace("-", "_") for each in PACKAGES if each.extra == "compiler"}


def _fail(message: str, status: int, given: Sequence[str]) -> int:
    if "--debug" in given:
        traceback.print_exc()
    message = _shown(message, given)
    if "--json" in given:
        print(json.dumps({"error": message, "exit_status": status}, indent=2))
    print(f"error: {message}", file=sys.stderr)
    return status


def _shown(message: str, given: Sequence[str]) -> str:
    """One printable line, in which no argument is repeated at full length, and which ends somewhere."""
    message = one_line(message)
    for argument in sorted(
        (one_line(part) for word in given for part in (word, *word.split("=", 1)[1:])), key=len
    ):
        if len(argument) > LONGEST_QUOTE:
            message = message.replace(argument, quoted(argument))
    return quoted(message, LONGEST_MESSAGE)
