"""Nothing is written but `--out` and the temporary folder: every command leaves an empty home empty."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from exporter.cli.commands import COMMANDS
from tests.cli.commands import ROOT, TINY

SCRIPT = """
import json, os, sys
from pathlib import Path
import pytest
from exporter.cli import main
from tests.support.pretended_race import PretendedRace

def below(folder):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*"))

PretendedRace(Path(os.environ["TMPDIR"]), pytest.MonkeyPatch())
OWN = ("b", "tiny.yaml", "tiny", "grid", "photos", "vectors", "models", "rungs")
found = []
for words in json.loads(sys.argv[1]):
    status = main([*words, "--quiet"])
    here = sorted(name for name in os.listdir() if name not in OWN)
    found.append([status, below(os.environ["HOME"]), here])
json.dump(found, open(sys.argv[2], "w"))
"""
RECIPE = """
schema_version: 1
model: {name: "timm:test_vit", options: {depth: 2}}
weights: random
image_size: 64
"""
RACE = ["--processes", "2", "--rounds", "1", "--threads", "1"]
RUNS = [
    ["models"],
    ["methods"],
    ["doctor"],
    ["recipe-schema"],
    ["inspect", *TINY, "--r", "2"],
    ["export", *TINY, "--r", "2", "--out", "b"],
    ["lint", "b/model.onnx", "--for", "trt"],
    ["run", "tiny.yaml", "--out", "tiny"],
    ["validate", "tiny"],
    ["embed", "b", "--data", "photos", "--out", "vectors", "--workers", "1"],
    ["bench", "tiny", *RACE, "--no-compile", "--no-eager"],
    ["sweep", *TINY, "--r", "0", "--out", "grid", "--jobs", "1", *RACE],
    ["ladder", *TINY, "--r", "2,0", "--data", "photos", "--agreement", "50%", "--out", "rungs", "--no-bench"],
    ["pack", "b", "--for", "triton", "--out", "models"],
    ["report", "b"],
    ["report", "grid"],
]


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, list[str], list[str]]]:
    """By command: its status, and what lies in the home folder and the working directory after it.

    They run one after the other in one process, whose home is empty. Races have workers that pretend; those of a real
    one are looked at where it is run.
    """
    place = tmp_path_factory.mktemp("writes")
    for name in ("home", "tmp", "work", "work/photos"):
        (place / name).mkdir()
    for red in range(12):
        Image.new("RGB", (8, 8), (20 * red, 90, 10)).save(place / "work" / "photos" / f"{red}.png")
    (place / "work" / "tiny.yaml").write_text(RECIPE, encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "HF_", "MPL"))}
    told = {"HOME": str(place / "home"), "TMPDIR": str(place / "tmp"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(RUNS), str(place / "found.json")],
        cwd=place / "work",
        env={**kept, **told},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads((place / "found.json").read_text(encoding="utf-8"))
    return {" ".join(words[:2]): tuple(each) for words, each in zip(RUNS, found, strict=True)}


def test_every_command_is_tried() -> None:
    without_a_server = {command.name for command in COMMANDS} - {"probe"}

    assert {words[0] for words in RUNS} == without_a_server


@pytest.mark.parametrize("words", [pytest.param(" ".join(words[:2]), id=words[0]) for words in RUNS])
def test_command_writes_nothing_but_what_it_was_asked_for(
    left: dict[str, tuple[int, list[str], list[str]]], words: str
) -> None:
    assert left[words] == (0, [], [])


@pytest.mark.parametrize("given", [None, "mine"])
def test_matplotlib_is_imported_without_a_trace(tmp_path: Path, given: str | None) -> None:
    """A settings file of the user's own is read, the environment is as it was, and the folder goes with the process."""
    settings = tmp_path / ".config/matplotlib/matplotlibrc"
    settings.parent.mkdir(parents=True)
    settings.write_text("lines.linewidth: 7.5\n", encoding="utf-8")
    script = (
        "from exporter.report.matplotlib_import import import_matplotlib\n"
        "import os; before = dict(os.environ)\n"
        "import_matplotlib(); assert dict(os.environ) == before\n"
        "import matplotlib; print(matplotlib.get_configdir(), matplotlib.rcParams['lines.linewidth'])"
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "MPL"))}
    own = {"MPLCONFIGDIR": str(tmp_path / given)} if given else {}
    told = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT), **own}
    done = subprocess.run(
        [sys.executable, "-c", script], env={**kept, **told}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    folder, width = done.stdout.split()
    assert float(width) == (1.5 if given else 7.5)
    assert Path(folder).parent == tmp_path
    assert Path(folder).exists() == bool(given)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".config", *([given] if given else [])]
