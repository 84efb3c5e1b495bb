"""Plans with entries of known names, and a worker that only pretends."""

import sys
from pathlib import Path

from tools.gpu.contenders import Contender
from tools.gpu.draw import Parameter
from tools.gpu.plan import Entry, ModelFacts, Plan, write_plan

PRETENDER = """
import json, sys, time
script = json.loads(sys.argv[1])
for line in sys.stdin:
    request = json.loads(line)
    does = script.get(str(request.get("entry")) + " " + request["ask"], script.get(request["ask"], ""))
    if does == "hangs":
        time.sleep(60)
    if does == "dies":
        print("out of luck", file=sys.stderr)
        sys.exit(3)
    answer = {
        "machine": {"device": "pretended"},
        "build": {},
        "load": {"cosine": 1.0, "max_abs_error": 0.0, "deviation": 0.0, "right": True},
        "time": {"settled": True, "rounds": [[2.0, 2.0], [2.0, 2.0]]},
        "kernels": {"kernels": []},
    }[request["ask"]]
    if does == "fails":
        answer = {"failed": "no compiler here"}
    if does == "refuses":
        answer = {"error": "no GPU here"}
    print(json.dumps(answer), flush=True)
"""
"""Answers every request in 2 ms calls but those that the script names: `"3 load": "hangs"`, or `"load": "dies"`."""

NAMES = ("library", "program", "aoti", "onnx")


def entry(kind: str = "program", *, missing: str = "", macs: int = 100, **known: object) -> Entry:
    contender = Contender(**{"model": "vit_b", "batch": 64, "kind": kind, **known})  # type: ignore[arg-type]
    return Entry(contender=contender, missing=missing, executed_macs=macs)


def write_list(folder: Path, *entries: Entry) -> Path:
    """A folder as `prepare` leaves it, without any program."""
    model = ModelFacts(
        parameters={"w": Parameter(shape=(2,), mean=0.0, spread=1.0)}, input="images", image=(3, 8, 8)
    )
    write_plan(folder, Plan(torch="2.0", models={"vit_b": model}, entries=entries))
    return folder


def pretender(folder: Path, script: str) -> tuple[str, ...]:
    """The command of a worker that pretends; `script` is JSON."""
    path = folder / "pretender.py"
    path.write_text(PRETENDER, encoding="utf-8")
    return (sys.executable, "-S", "-E", str(path), script)
