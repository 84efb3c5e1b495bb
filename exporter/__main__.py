"""`python -m exporter`: a command as a process, with its signals, its streams and its exit status."""

import sys

from exporter.processes.collection import collect_less_often
from exporter.processes.interrupts import ignore_signals, interrupt_on_signals

_INTERRUPTED = 130
_NOT_AVAILABLE = 7


def run() -> int:
    """Run the command line of this process; returns its exit status, after which nothing can interrupt it any more."""
    status = None
    try:
        interrupt_on_signals()
        status = _guarded()
        ignore_signals()
    except KeyboardInterrupt:
        ignore_signals()
        if (
            status is None
        ):  # while modules were being imported; of a command that was done, nothing is interrupted
            sys.stderr.write("error: interrupted\n")
    return _INTERRUPTED if status is None else status


def _guarded() -> int:
    from exporter.streams import OutputLost, guard_streams

    guard_streams()
    collect_less_often()
    try:
        from exporter.cli import main
    except ModuleNotFoundError as missing:
        sys.stderr.write(
            f"error: {missing.name} is not installed: the command line comes with the compiler; "
            'pip install "exporter[compiler]"\n'
        )
        return _NOT_AVAILABLE
    try:
        status = main()
        sys.stdout.flush()
    except OutputLost as lost:
        if not lost.quiet:
            sys.stderr.write(f"error: {lost}\n")
        return lost.exit_status
    return status


if __name__ == "__main__":
    sys.exit(run())
