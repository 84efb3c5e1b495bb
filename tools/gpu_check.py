"""What every way of running a model does on a GPU: prepared on any machine, then timed within fifteen minutes.

    python -m tools.gpu_check prepare prepared/
    python -m tools.gpu_check run prepared/ --out results/ --minutes 15

`prepare` captures, rewrites and lowers every model; it needs no GPU, and takes most of the time. `run` only times. It
writes `gpu_check.json` and `gpu_check.md` after every contender, and prints the page at its end, however it ends. The
parts are in `tools/gpu/`.
"""

import argparse
import importlib.util
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from exporter.errors import ExportError, TargetUnavailableError, UsageError
from exporter.processes.interrupts import interrupt_on_signals

INTERRUPTED = 130
DEFAULT_MINUTES = 13.0
JSON, MARKDOWN = "gpu_check.json", "gpu_check.md"

NEEDED = {"safetensors": "safetensors", "scipy": "scipy", "timm": "timm", "torch": "torch"}
"""Modules that a bare GPU machine may lack, and their packages. Engines report for themselves what they lack."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status.

    Args:
        arguments: of the command line; None for the process's own.
    """
    asked = _parser().parse_args(arguments)
    try:
        check_needed()
        asked.command(asked)
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


def _prepare(asked: argparse.Namespace) -> None:
    from tools.gpu.contenders import contenders
    from tools.gpu.prepare import prepare

    folder: Path = asked.folder
    models = {"models": _parts(asked.models)} if asked.models else {}
    wanted = contenders(**models, only=_parts(asked.only))
    folder.mkdir(parents=True, exist_ok=True)
    made = prepare(folder, wanted, lambda line: print(line, file=sys.stderr, flush=True))
    size = sum(file.stat().st_size for file in folder.iterdir())
    ready = sum(not each.missing for each in made.entries)
    print(f"{ready} of {len(made.entries)} contenders are ready in {folder}: {size / 1e6:.1f} MB")


def _run(asked: argparse.Namespace) -> None:
    from tools.gpu.drive import Check, Result, Settings, run
    from tools.gpu.page import page, to_json

    if asked.minutes <= 0:
        raise UsageError(f"--minutes: expected more than 0, got {asked.minutes:g}")
    out: Path = asked.out
    out.mkdir(parents=True, exist_ok=True)

    def tell(check: Check, latest: Result) -> None:
        write_whole(out / JSON, to_json(check).encode())
        write_whole(out / MARKDOWN, page(check).encode())
        said = latest.reason or f"{latest.rounds[-1][-1]:.3f} ms"
        print(f"{check.seconds:6.1f} s  {latest.entry.contender.name}: {said}", file=sys.stderr, flush=True)

    from exporter.records import write_whole

    with tempfile.TemporaryDirectory() as work:
        settings = Settings(
            prepared=asked.folder,
            device=asked.device,
            budget_s=asked.minutes * 60,
            only=_parts(asked.only),
            work=Path(work),
        )
        try:
            run(settings, tell)
        finally:
            with suppress(FileNotFoundError):  # nothing was timed
                print((out / MARKDOWN).read_text(encoding="utf-8"))


def _parts(text: str) -> tuple[str, ...]:
    return tuple(filter(None, text.split(",")))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.gpu_check", description=__doc__)
    commands = parser.add_subparsers(required=True)
    prepare = commands.add_parser("prepare", help="write everything that needs no GPU into a folder")
    prepare.add_argument(
        "--models", default="", help="some of vit_b,vit_l,clip_l,dinov2_b,tiny (default: all but tiny)"
    )
    run = commands.add_parser("run", help="time what was prepared")
    run.add_argument("--out", type=Path, required=True, help="folder for the results")
    run.add_argument("--minutes", type=float, default=DEFAULT_MINUTES, help="for everything (default 13)")
    run.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu for a dry run")
    for command, function in ((prepare, _prepare), (run, _run)):
        command.add_argument("folder", type=Path)
        command.add_argument(
            "--only", default="", help="contenders whose names contain one of these, with commas"
        )
        command.set_defaults(command=function)
    return parser


if __name__ == "__main__":
    interrupt_on_signals()
    sys.exit(main())
