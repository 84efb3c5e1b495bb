"""Races with known times, and a builder that only pretends."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from exporter.benchmark import Contender, Launch, Measurement, Race
from exporter.models import ModelRequest
from tools.gpu.drive import JobResult
from tools.gpu.jobs import BASELINE, Job, Way

PRETENDER = """
import json, sys
script = json.loads(sys.argv[1])
for line in sys.stdin:
    request = json.loads(line)
    if request["ask"] == "machine":
        answer = {"error": script["absent"]} if "absent" in script else {"device": "pretended"}
    else:
        name = script["names"][request["job"]][request["way"]]
        does = script.get(name, "builds")
        if does == "dies":
            print("out of luck", file=sys.stderr)
            sys.exit(3)
        contender = {**script["contender"], "name": name}
        answer = {"contender": contender, "facts": {"parity": {"cosine": 1.0, "passed": True}}}
        if does == "fails":
            answer = {"failed": "no compiler here"}
    print(json.dumps(answer), flush=True)
"""
"""Builds every contender but those that the script names."""

PARITY = {"cosine": 0.9995, "max_abs_error": 0.01, "passed": True}


def write_pretender(folder: Path) -> Path:
    """Write the script of a builder that pretends."""
    path = folder / "pretended_builder.py"
    path.write_text(PRETENDER, encoding="utf-8")
    return path


def contender(name: str, macs: int = 100, batch: int = 2) -> Contender:
    model = ModelRequest(model="vit_digits")
    return Contender(name=name, kind="module", batch=batch, reduced=False, executed_macs=macs, model=model)


def raced(
    *timed: tuple[Way, float, int],
    model: str = "vit_b",
    batch: int = 64,
    facts: Mapping[str, Any] | None = None,
) -> JobResult:
    """A job whose every call of a way took as many milliseconds; of images as many as `batch`.

    Args:
        timed: ways with milliseconds and multiply-accumulates.
        model: of the job.
        batch: of the job.
        facts: of every way, beside its parity.
    """
    ways = tuple(way for way, _, _ in timed)
    race = Race(
        measurements=tuple(
            Measurement(contender=contender(way.name, macs, batch), launches=(_launch(ms),) * 2)
            for way, ms, macs in timed
        ),
        unavailable=(),
        threads=1,
        cores=(0,),
        device="cuda",
    )
    known = {"parity": PARITY, **(facts or {})}
    job = Job(name=f"some {model} b{batch}", model=model, batch=batch, ways=ways)
    return JobResult(job=job, race=race, facts={way.name: known for way in ways})


def pair(kind: str = "compile", *, ms: float = 1.25, **known: Any) -> tuple[tuple[Way, float, int], ...]:
    """The baseline in 4 ms; dense in 2 ms with 200 MACs, and r13 with 125."""
    dense = Way(kind=kind, **known)  # type: ignore[arg-type]
    return (BASELINE, 4.0, 200), (dense, 2.0, 200), (replace(dense, merging="r13"), ms, 125)


def _launch(ms: float) -> Launch:
    return Launch(
        load_ms=1.0,
        first_ms=1.0,
        warm_up_calls=1,
        settled=True,
        rounds=((ms,) * 3,) * 4,
        other_load=0.0,
        peak_memory_bytes=256 * 2**20,
        peak_since="load",
    )
