"""Entries with known times, and a worker that only pretends."""

from pathlib import Path
from typing import Any

from tools.gpu.jobs import BASELINE
from tools.gpu.results import Entry, JobResult, Round

ROUNDS = 4

PRETENDER = """
import json, os, sys
script = json.loads(sys.argv[1])
job, names = 0, {}
for line in sys.stdin:
    request = json.loads(line)
    ask = request["ask"]
    answer = {}
    if ask == "machine":
        answer = {"error": script["absent"]} if "absent" in script else {"device": "pretended"}
    elif ask == "open":
        job, names = request["job"], []
    elif ask == "build":
        number = request["contender"]
        does = script.get(f"{job}.{number}", "runs")
        if does == "dies":
            print("out of luck", file=sys.stderr)
            sys.exit(3)
        name = script["names"][job][number]
        answer = {"failed": {}, "facts": {name: {}}, "executed_macs": 100, "ruined": does == "ruins"}
        if does == "fails":
            answer |= {"failed": {name: "no compiler here"}, "facts": {}, "executed_macs": 0}
        names.extend(answer["facts"])
    elif ask == "round":
        if script.get("rounds") == "die" and request["seed"] == 3:
            sys.exit(3)
        rounds = {name: {"latency_ms": [2.0, 2.0], "window_ms": 1.0, "window_calls": 3} for name in names}
        answer = {"rounds": rounds, "clocks": {"sm_clock_mhz": 1980, "power_w": 350.0}}
    else:
        answer = {"kernels": {name: [{"name": "gemm", "calls": 1, "us": 2.0, "share": 1.0}] for name in names}}
    print(json.dumps(answer), flush=True)
"""
"""Contenders run but for those that the script names by job and place; every worker process behaves alike."""


def write_pretender(folder: Path) -> Path:
    """Write the script of a worker that pretends."""
    path = folder / "pretender.py"
    path.write_text(PRETENDER, encoding="utf-8")
    return path


def timed(kind: str, merging: str, *, window_ms: float, latency_ms: float, **known: Any) -> Entry:
    """An entry whose every round took as long."""
    settings: dict[str, Any] = {"precision": "fp16", "executed_macs": 100, "cuda_graph": False} | known
    name = f"{kind} {merging} {settings['precision']}" + (" graph" if settings["cuda_graph"] else "")
    one = Round(latency_ms=(latency_ms,) * 3, window_ms=window_ms, window_calls=5)
    return Entry(name=name, kind=kind, merging=merging, state="timed", rounds=(one,) * ROUNDS, **settings)


def baseline(window_ms: float = 4.0) -> Entry:
    """The library's own module in fp16."""
    entry = timed("model", "dense", window_ms=window_ms, latency_ms=window_ms)
    assert entry.name == BASELINE
    return entry


def job(*entries: Entry, model: str = "ViT-B/16", batch: int = 64, **known: Any) -> JobResult:
    """A job of these entries."""
    return JobResult(name="some job", model=model, batch=batch, purpose="time", entries=entries, **known)
