"""Measure what every way of running a model does on the GPU of this machine: one command, one table.

    python -m tools.gpu_check --out results/
    python -m tools.gpu_check --out results-l/ --only vit_l,clip_l

Writes `gpu_check.json` and `gpu_check.md` into the folder after every job. The parts are in `tools/gpu/`.
"""

import argparse
import importlib.util
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from exporter.errors import ExportError, TargetUnavailableError, UsageError

INTERRUPTED = 130
DEFAULT_MINUTES = 9.5
JSON, MARKDOWN = "gpu_check.json", "gpu_check.md"

NEEDED = {"safetensors": "safetensors", "scipy": "scipy", "timm": "timm", "torch": "torch"}
"""Modules that a bare GPU machine may lack, and their packages. Engines report for themselves what they lack."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the check; its exit status.

    Args:
        arguments: of the command line; None for the process's own.
    """
    asked = _parser().parse_args(arguments)
    try:
        if asked.minutes <= 0:
            raise UsageError(f"--minutes: expected more than 0, got {asked.minutes:g}")
        check_needed()
        _run(asked)
    except ExportError as error:
        sys.stderr.write(f"{error}\n")
        return int(error.exit_status)
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def check_needed(needed: Mapping[str, str] = NEEDED) -> None:
    """Check that every module is there, before anything is started.

    Raises:
        TargetUnavailableError: naming the packages of those that are not.
    """
    missing = " ".join(
        package for module, package in needed.items() if importlib.util.find_spec(module) is None
    )
    if missing:
        raise TargetUnavailableError(
            f"gpu_check: needs {missing}; pip install {missing}; or without a network, elsewhere: pip download "
            f"--no-deps -d wheels {missing}, and here: pip install --no-index --no-deps wheels/*.whl"
        )


def _run(asked: argparse.Namespace) -> None:
    from tools.gpu.drive import Check, Settings, run
    from tools.gpu.figures import rows, verdicts
    from tools.gpu.page import page, to_json, write

    folder: Path = asked.out
    folder.mkdir(parents=True, exist_ok=True)

    def tell(check: Check) -> None:
        figures = rows(check.jobs)
        targets = verdicts(figures)
        write(folder / JSON, to_json(check, targets))
        write(folder / MARKDOWN, page(check, figures, targets))
        if not check.finished:
            latest = check.jobs[-1]
            timed = len(latest.race.measurements) if latest.race is not None else 0
            line = f"{check.seconds:6.1f} s  {latest.job.name}: {timed} of {len(latest.job.ways)} contenders"
            sys.stderr.write(line + (f"; {latest.reason}" if latest.reason else "") + "\n")

    with tempfile.TemporaryDirectory() as work:
        settings = Settings(
            jobs=asked.jobs,
            device="cpu" if asked.device == "cpu" else "cuda",
            budget_s=asked.minutes * 60,
            only=tuple(filter(None, asked.only.split(","))),
            work=Path(work),
        )
        run(settings, tell)
    sys.stdout.write((folder / MARKDOWN).read_text(encoding="utf-8"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.gpu_check", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--minutes", type=float, default=DEFAULT_MINUTES, help="for everything (default 9.5)")
    parser.add_argument(
        "--only", default="", help="jobs whose names contain one of these, separated by commas"
    )
    parser.add_argument(
        "--jobs", choices=("full", "tiny", "tiny-compiled"), default="full", help=argparse.SUPPRESS
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
