"""The executor on this machine: workers that die, shards that kill, and a worker that has no compiler."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from exporter.embed import embed
from exporter.errors import UsageError
from tests.support.image_trees import write
from tests.support.processes import still_running
from tests.unit.bundle.test_serving import BLOCK, ROOT
from tests.unit.embed.conftest import Ask
from tests.unit.embed.test_run import NAMES, contents, rows_of

DEADLY = """
import os, signal
import exporter.images.opening as opening

open_image = opening.open_image

def deadly(path):
    if path.name == "4.png":
        os.kill(os.getpid(), signal.SIGKILL)
    return open_image(path)

import exporter.images
exporter.images.open_image = opening.open_image = deadly
"""

SLOW = """
import time
import exporter.images.opening as opening

open_image = opening.open_image

def slow(path):
    time.sleep(0.2)
    return open_image(path)

import exporter.images
exporter.images.open_image = opening.open_image = slow
"""

RUN = """
import sys
from exporter.embed import EmbedRequest, embed

bundle, data, out = sys.argv[1:]
embed(EmbedRequest(bundle=bundle, data=data, out=out, target="onnx", shard=1, workers=2, max_errors="100%"))
"""

PEAKS = """
import re, sys
from pathlib import Path
import psutil
from exporter.embed import EmbedRequest, embed

def peak_kib(pid):
    return int(re.search(r"VmHWM:\\s*(\\d+) kB", Path(f"/proc/{pid}/status").read_text()).group(1))

def told(done, total):
    if done == total:
        print(peak_kib("self"), *(peak_kib(each.pid) for each in psutil.Process().children()))

bundle, data, out = sys.argv[1:]
embed(EmbedRequest(bundle=bundle, data=data, out=out, target="onnx", workers=1, max_errors="100%"), told)
"""

SMALL_FILES = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))"


def start_workers_with(code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every process that is started from now on run some Python first."""
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(code, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(folder / "site"))


def test_two_workers_of_which_one_is_killed_write_what_one_worker_writes(
    ask: Ask, in_this_process: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    alone = contents(embed(ask(out=tmp_path / "alone")).out)
    monkeypatch.undo()
    killed: list[int] = []
    earlier = psutil.Process().children()  # of tests before this one

    def workers() -> list[psutil.Process]:
        return [each for each in psutil.Process().children() if each not in earlier]

    def kill_one(done: int, total: int) -> None:
        if done and not killed:
            killed.append(workers()[0].pid)
            os.kill(killed[0], signal.SIGKILL)

    out = embed(ask(workers=2), kill_one).out

    assert killed
    assert contents(out) == alone
    assert not workers()


def test_a_run_whose_parent_is_killed_leaves_no_process_and_goes_on(
    ask: Ask, in_this_process: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    alone = contents(embed(ask(out=tmp_path / "alone", shard=1)).out)
    start_workers_with(SLOW, tmp_path, monkeypatch)
    request, out = ask(shard=1), tmp_path / "out"
    path = os.pathsep.join((str(ROOT), os.environ["PYTHONPATH"]))
    parent = subprocess.Popen(
        (sys.executable, "-c", RUN, request.bundle, request.data, out), env={**os.environ, "PYTHONPATH": path}
    )
    deadline = time.monotonic() + 60
    while not list(out.glob("*.parquet")) and time.monotonic() < deadline:
        time.sleep(0.01)
    workers = [child.pid for child in psutil.Process(parent.pid).children(recursive=True)]
    parent.kill()
    parent.wait()

    assert len(workers) == 2
    assert not still_running(workers)
    assert 0 < len(list(out.glob("*.parquet"))) < 7
    assert embed(request).found > 0
    assert contents(out) == alone


def test_a_shard_that_ends_three_workers_becomes_errors_and_is_named(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    start_workers_with(DEADLY, tmp_path, monkeypatch)

    embedded = embed(ask())

    rows = rows_of(embedded.out)
    assert [row["path"] for row in rows] == NAMES
    why = "not embedded: 3 processes ended while they embedded shard 1"
    assert [row["error"] for row in rows] == [None, None, None, why, why, why, None]
    assert [row["logits"] is None for row in rows] == [False] * 3 + [True] * 3 + [False]
    assert embedded.done.given_up == (1,)
    assert not list(embedded.out.glob(".*"))


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_a_worker_needs_no_compiler(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, target: str
) -> None:
    start_workers_with(BLOCK.replace(', "psutil"', ""), tmp_path, monkeypatch)

    embedded = embed(ask(target=target, shard=7))

    assert json.loads((embedded.out / "done.json").read_text())["embedded"] == 6


def test_a_worker_that_cannot_write_says_so_in_one_line(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    start_workers_with(SMALL_FILES, tmp_path, monkeypatch)

    with pytest.raises(UsageError, match=r"File too large; files may not grow that large here"):
        embed(ask())


def test_a_worker_of_another_version_is_refused(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code = "import exporter.version; exporter.version.__version__ = '9.9'"
    start_workers_with(code, tmp_path, monkeypatch)

    with pytest.raises(UsageError, match=r"expected exporter .* on every worker, got 9.9"):
        embed(ask())


def test_memory_does_not_grow_with_the_corpus(ask: Ask, tmp_path: Path) -> None:
    peaks_kib = []
    for count in (2_048, 100_000):  # of a file that is not there, which takes no time to decode
        table, request = write(tmp_path, ["image", *["absent.png"] * count]), ask()
        command = (sys.executable, "-c", PEAKS, request.bundle, table, tmp_path / str(count))
        ran = subprocess.run(
            command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, check=True
        )
        peaks_kib.append([int(each) for each in ran.stdout.split()])

    grown = [many - few for few, many in zip(*peaks_kib, strict=True)]
    assert len(grown) == 2
    assert max(grown) < 16 * 1024, peaks_kib
