"""Contenders, quick options, and workers that only pretend."""

import json
import sys
from pathlib import Path

from exporter.benchmark import Contender, EngineFile, RaceOptions, WarmUp

SIZE = 8
BATCH = 2

QUICK = WarmUp(window_calls=2, window_ms=0.0, tolerance=1e9, most_ms=1e6)
"""Two windows of two calls, whatever they take."""

PRETENDER = """
import json, os, sys, time
behaviour = json.loads(sys.argv[1])
count = 0
for line in sys.stdin:
    request = json.loads(line)
    if request["ask"] == "prepare":
        job = request["job"]
        name = job["contender"]["name"]
        script = behaviour.get(name, {})
        if script.get("log"):
            with open(script["log"], "a") as log:
                log.write(f"{os.getpid()}\\n")
    step = script.get(request["ask"], "answer")
    if step == "die":
        print("terminate called: out of luck", file=sys.stderr)
        sys.exit(3)
    if step == "hang":
        time.sleep(60)
    if step == "babble":
        print("loading extension ...", flush=True)
        continue
    if step == "refuse":
        answer = {"error": "no compiler here"}
    elif request["ask"] == "prepare":
        answer = {"load_ms": 5.0, "first_ms": 7.0, "warm_up_calls": 4, "settled": True, "notes": []}
    elif request["ask"] == "round":
        ms = script.get("ms", 1.0)
        count += 1
        answer = {"samples_ms": [ms + count / 1000, ms], "cpu_ms": 0.0, "settings": request}
    elif request["ask"] == "profile":
        answer = {"block_ms": {"stem": 0.5, "block_00": 2.0}}
    else:
        answer = {"peak_memory_bytes": 1000, "peak_since": "load", "device": {}}
    print(json.dumps(answer), flush=True)
"""


def as_engine(name: str, engine: EngineFile, *, reduced: bool = False, macs: int = 128) -> Contender:
    return Contender(
        name=name,
        kind="engine",
        target="onnx",
        batch=BATCH,
        reduced=reduced,
        executed_macs=macs,
        engine=engine,
    )


def as_program(name: str, program: Path) -> Contender:
    return Contender(name=name, kind="program", batch=BATCH, reduced=True, executed_macs=128, program=program)


def quick(work: Path, **changes: object) -> RaceOptions:
    """Two launches of two rounds of a few calls."""
    fields = {
        "threads": 1,
        "launches": 2,
        "rounds": 2,
        "min_round_ms": 0.0,
        "min_calls": 3,
        "max_calls": 3,
        "warm_up": QUICK,
        "rest_ms": 0.0,
        "timeout_s": 60.0,
        **changes,
    }
    return RaceOptions(work=work, **fields)  # type: ignore[arg-type]


def pretending(folder: Path, **behaviour: object) -> tuple[str, ...]:
    """A worker command; by contender name, what each request is met with."""
    script = folder / "pretender.py"
    script.write_text(PRETENDER, encoding="utf-8")
    return (sys.executable, "-S", "-E", str(script), json.dumps(behaviour))
