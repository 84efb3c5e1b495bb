"""Checks the project: format, lint, types, tests. The same for a person, for CI and for an image.

    python -m tools.check                     every step
    python -m tools.check --fix               rewrites what the formatter and the linter can, then checks
    python -m tools.check --only lint,types   some steps

Every step runs, so that one call shows all that is wrong; the tests are last, so that their summary ends the output.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

STEPS: dict[str, tuple[str, ...]] = {
    "format": ("ruff", "format", "--check", "--quiet", "."),
    "lint": ("ruff", "check", "--quiet", "."),
    "types": ("mypy",),
    "tests": ("pytest", "--numprocesses=2", "--dist=loadfile", "--no-loadscope-reorder"),
}
"""Module and arguments, in order. A file's tests share what they build, so that they stay in one process; the files
that build most come first by their names, and the small ones fill up the end."""

FIXES: tuple[tuple[str, ...], ...] = (
    ("ruff", "check", "--fix-only", "--quiet", "."),
    ("ruff", "format", "--quiet", "."),
)

ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""The tests' models are tiny and two processes run them: more threads only wait for each other."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the steps; returns 0 if all of them pass, else 1."""
    options = _parser().parse_args(arguments)
    for fix in FIXES if options.fix else ():
        _run(fix)
    failed = [name for name in options.only if not _passes(name)]
    if failed:
        print(f"check: failed: {', '.join(failed)}", file=sys.stderr)
        return 1
    print(f"check: passed: {', '.join(options.only)}")
    return 0


def _passes(name: str) -> bool:
    print(f"check: {name}: {' '.join(STEPS[name])}", flush=True)
    started = time.perf_counter()
    status = _run(STEPS[name])
    outcome = "passed" if status == 0 else f"FAILED with status {status}"
    print(f"check: {name}: {outcome} after {time.perf_counter() - started:.0f} s", flush=True)
    return status == 0


def _run(command: Sequence[str]) -> int:
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, env={**ONE_THREAD, **os.environ}
    ).returncode


def _steps(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in STEPS:
            raise argparse.ArgumentTypeError(f"expected some of {','.join(STEPS)}, got {name}")
    return [name for name in STEPS if name in names]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.check", description=__doc__.splitlines()[0])
    parser.add_argument("--fix", action="store_true", help="rewrite what can be rewritten, first")
    parser.add_argument(
        "--only", type=_steps, default=list(STEPS), metavar="STEP,...", help="run these steps only"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
