"""What every way of running a model does on the GPU of this machine: one command, one table, ten minutes.

    python -m tools.gpu_check --out results/
    python -m tools.gpu_check --out results-l/ --only vit_l,clip_l

Writes `gpu_check.json` and `gpu_check.md` into the folder, anew after every job. The parts are in `tools/gpu/`.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from exporter.errors import ExportError, UsageError
from tools.gpu.machine import check_needed, machine_facts

WORKER = (sys.executable, "-m", "tools.gpu.worker")

INTERRUPTED = 130
DEFAULT_MINUTES = 9.5
"""So that all of it, with the start of Python, ends within ten."""

JSON, MARKDOWN = "gpu_check.json", "gpu_check.md"


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


def _run(asked: argparse.Namespace) -> None:
    from tools.gpu.drive import Settings, run
    from tools.gpu.figures import rows
    from tools.gpu.results import Check, to_json, write
    from tools.gpu.table import page
    from tools.gpu.verdicts import verdicts

    folder: Path = asked.out
    folder.mkdir(parents=True, exist_ok=True)

    def tell(check: Check) -> None:
        figures = rows(check.jobs)
        targets = verdicts(figures)
        derived = [
            {key: value for key, value in asdict(row).items() if key != "entry"} | {"name": row.entry.name}
            for row in figures
        ]
        write(folder / JSON, to_json(check, {"rows": derived, "targets": list(map(asdict, targets))}))
        write(folder / MARKDOWN, page(check, figures, targets))
        if check.finished:
            return
        latest = check.jobs[-1]
        timed = sum(entry.state in ("timed", "listed") for entry in latest.entries)
        sys.stderr.write(
            f"{check.seconds:6.1f} s  {latest.name}: {timed} of {len(latest.entries)} contenders"
            + (f"; {latest.reason}" if latest.reason else "")
            + "\n"
        )

    with tempfile.TemporaryDirectory() as work:
        settings = Settings(
            jobs=asked.jobs,
            device="cpu" if asked.device == "cpu" else "cuda",
            budget_s=asked.minutes * 60,
            only=tuple(filter(None, asked.only.split(","))),
            work=Path(work),
            worker=WORKER,
        )
        run(settings, machine_facts(), tell)
    sys.stdout.write((folder / MARKDOWN).read_text(encoding="utf-8"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.gpu_check", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--minutes", type=float, default=DEFAULT_MINUTES, help="for everything (default 9.5)")
    parser.add_argument(
        "--only", default="", help="jobs whose names contain one of these, with commas between"
    )
    parser.add_argument(
        "--jobs", choices=("full", "tiny", "tiny-compiled"), default="full", help=argparse.SUPPRESS
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
