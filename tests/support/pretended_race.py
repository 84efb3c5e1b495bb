"""Races whose workers only pretend: quick, and as fast as a table says. Also a command line that races so.

A worker notes down what it was asked to run, and the type and shape of the input that it was given.
"""

import json
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from exporter.benchmark import RaceOptions
from exporter.cli import main
from exporter.pipeline import racing

EAGER_MS, COMPILED_MS, PROGRAM_MS, DENSE_MS, REDUCED_MS = 20.0, 16.0, 25.0, 10.0, 4.0
"""Of an image, in each form of a model."""

_WORKER = """
import json, sys
log, times, broken = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3:]
for line in sys.stdin:
    request = json.loads(line)
    if request["ask"] == "prepare":
        contender = request["job"]["contender"]
        kind = contender["kind"]
        if kind == "engine":
            kind = "reduced" if contender["reduced"] else "dense"
        ms = times[kind] * contender["batch"]
        with open(request["job"]["images"], "rb") as images:
            header = images.read(128)[10:].split(b"}")[0].decode() + "}"
        with open(log, "a") as file:
            file.write(json.dumps({"contender": contender, "input": header}) + chr(10))
        answer = {"load_ms": 5.0, "first_ms": 7.0, "warm_up_calls": 4, "settled": True, "notes": []}
        if contender["name"] in broken:
            answer = {"error": "no such library here"}
    elif request["ask"] == "round":
        answer = {"samples_ms": [ms, ms * 1.01, ms * 0.99], "cpu_ms": 0.0}
    elif request["ask"] == "profile":
        answer = {"block_ms": {}}
    else:
        answer = {"peak_memory_bytes": 1000, "peak_since": "load", "device": {}}
    print(json.dumps(answer), flush=True)
"""


@dataclass(frozen=True, kw_only=True)
class Started:
    """A worker that was started: its contender, and the header of its input as numpy writes it."""

    contender: dict[str, Any]
    input: str


class PretendedRace:
    """Replaces the workers of every race of the pipeline, for as long as `patch` lasts."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self._folder, self._patch = folder, patch
        self._log = folder / "started.jsonl"
        self.break_down()

    def break_down(self, *names: str) -> None:
        """From now on, contenders of these names refuse to load."""
        script = self._folder / "worker.py"
        script.write_text(_WORKER, encoding="utf-8")
        times = {
            "module": EAGER_MS,
            "compiled": COMPILED_MS,
            "program": PROGRAM_MS,
            "dense": DENSE_MS,
            "reduced": REDUCED_MS,
        }
        worker = (sys.executable, "-S", "-E", str(script), str(self._log), json.dumps(times), *names)
        self._patch.setattr(racing, "RaceOptions", partial(RaceOptions, worker=worker, rest_ms=0.0))

    @property
    def started(self) -> list[Started]:
        """Every worker that was started by now."""
        lines = self._log.read_text(encoding="utf-8").splitlines() if self._log.exists() else []
        return [Started(**json.loads(line)) for line in lines]

    @property
    def inputs(self) -> dict[tuple[str, int], str]:
        """Header of the input by contender and batch size."""
        return {(each.contender["name"], each.contender["batch"]): each.input for each in self.started}


if __name__ == "__main__":
    PretendedRace(Path(sys.argv[1]), pytest.MonkeyPatch())
    sys.exit(main(sys.argv[2:]))
