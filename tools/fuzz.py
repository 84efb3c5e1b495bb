"""Give every command damaged inputs, and keep what it answers wrongly.

    python -m tools.fuzz --minutes 5
    python -m tools.fuzz --minutes 2 --only bundle,recipe --seed 7 --out fuzzed/

Seeded and in this process: the same seed gives the same cases. Each failure is made as small as it gets and saved in
the folder: the files, the command, and what it said with `--debug`. The parts are in `tools/fuzzing/`.
"""

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.fuzzing.kinds import KINDS, Files, Kind, pictures, read_bundle
from tools.fuzzing.oracle import ask, complaint, write

MOST_STEPS = 3

_FRAME = re.compile(r'File "[^"]*?((?:exporter|tools)/[^"]+)", line \d+, in (\w+)')


@dataclass(frozen=True, kw_only=True)
class Case:
    """Mutations of a kind's files, one seed each, for one of its commands."""

    kind: Kind
    command: int
    steps: tuple[int, ...]

    def made(self, whole: Files) -> tuple[Files, tuple[str, ...]]:
        """Its files, and the words of its command."""
        files, words = self.kind.files(whole), tuple(self.kind.commands[self.command].split())
        for step in self.steps:
            files, words = self.kind.damage(files, words, step)
        return self.kind.finish(files), words


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A case whose command answered wrongly, and how."""

    case: Case
    what: str
    said: str

    @property
    def place(self) -> str:
        """What is wrong, and the innermost function of the project in the traceback: one fault has one."""
        frames = _FRAME.findall(self.said)
        return f"{self.what} in {frames[-1][0]}:{frames[-1][1]}" if frames else self.what


def campaign(kinds: Sequence[Kind], whole: Files, *, seed: int, seconds: float) -> Iterator[Failure | None]:
    """Try cases until the time is over, the kinds in turn; yields each new failure, or None for a good answer.

    Args:
        kinds: to try.
        whole: the files of a bundle that is fine.
        seed: the same one gives the same cases.
        seconds: to spend.
    """
    known: set[str] = set()
    end, number = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        kind = kinds[number % len(kinds)]
        base = seed * 1_000_003 + number * (MOST_STEPS + 1)
        steps = tuple(base + step for step in range(1 + base % MOST_STEPS))
        case = Case(kind=kind, command=number // len(kinds) % len(kind.commands), steps=steps)
        failure = tried(case, whole)
        if failure is not None and failure.place not in known:
            known.add(failure.place)
            yield smallest(failure, whole)
        else:
            yield None
        number += 1


def tried(case: Case, whole: Files) -> Failure | None:
    """The failure that a case is, or None."""
    files, words = case.made(whole)
    answer = ask(files, words)
    what = complaint(answer)
    if what is None:
        return None
    told = ask(files, words, debug=True).err
    return Failure(case=case, what=what, said="\n".join((told, *answer.strays)))


def smallest(failure: Failure, whole: Files) -> Failure:
    """The same failure of fewer mutations."""
    for step in failure.case.steps:
        rest = tuple(each for each in failure.case.steps if each != step)
        smaller = tried(Case(kind=failure.case.kind, command=failure.case.command, steps=rest), whole)
        if rest and smaller is not None and smaller.place == failure.place:
            return smallest(smaller, whole)
    return failure


def save(failure: Failure, whole: Files, folder: Path) -> None:
    """Write what it takes to see a failure again."""
    files, words = failure.case.made(whole)
    folder.mkdir(parents=True, exist_ok=True)
    write(files, folder / "CASE")
    text = f"{failure.place}\n{failure.case}\n\n{words!a}\n\n{failure.said}"
    (folder / "failure.txt").write_text(text, encoding="utf-8", errors="backslashreplace")


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz; returns 0 where every command answered as it should, else 1."""
    asked = _parser().parse_args(arguments)
    kinds = [kind for kind in KINDS if asked.only is None or kind.name in asked.only.split(",")]
    if not kinds:
        sys.stderr.write(
            f"--only: expected some of {','.join(kind.name for kind in KINDS)}, got {asked.only}\n"
        )
        return 2
    whole = read_bundle(asked.bundle) if asked.bundle else _built()
    asked.out.mkdir(parents=True, exist_ok=True)
    cases, failures = 0, 0
    for failure in campaign(kinds, whole, seed=asked.seed, seconds=asked.minutes * 60):
        cases += 1
        if failure is not None:
            failures += 1
            save(failure, whole, asked.out / f"{failure.case.kind.name}-{failures:02d}")
            print(f"{failure.case.kind.name}: {failure.place}", flush=True)
    print(
        f"fuzz: {cases} cases of {','.join(kind.name for kind in kinds)}; {failures} failures in {asked.out}"
    )
    return 1 if failures else 0


def _built() -> Files:
    """A small bundle with everything in it that commands read: measured on images, and raced."""
    with tempfile.TemporaryDirectory() as place:
        write(pictures(), Path(place))
        bundle = f"{place}/b"
        _done(f"timm:test_vit --weights random --r 4 --data {place}/data --out {bundle}")
        _done(f"bench {bundle} --processes 2 --rounds 2 --no-compile --no-eager")
        return read_bundle(Path(bundle))


def _done(line: str) -> None:
    from exporter.cli import main as exporter

    if status := exporter([*line.split(), "--quiet"]):
        raise SystemExit(status)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="for the cases (default 5)")
    parser.add_argument("--only", help=f"some of {','.join(kind.name for kind in KINDS)}")
    parser.add_argument("--seed", type=int, default=0, help="another one gives other cases (default 0)")
    parser.add_argument(
        "--out", type=Path, default=Path("fuzzed"), help="folder for the failures (default fuzzed)"
    )
    parser.add_argument(
        "--bundle", type=Path, help="damage this bundle instead of a small one that is built first"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
