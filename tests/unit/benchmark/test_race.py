"""The race: with pretended workers its order and bookkeeping, with real ones that nothing is lost. Never times."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from exporter.benchmark import EngineFile, Progress, Race, environment, race, report_on
from exporter.benchmark.race import worker_environment
from exporter.errors import UsageError
from exporter.records import canonical_json, to_tree
from tests.support.processes import still_running
from tests.unit.benchmark.contenders import BATCH, QUICK, as_engine, pretending, quick

ROOT = Path(__file__).resolve().parents[3]


Run = Callable[..., Race]


@pytest.fixture
def run(engine: EngineFile, images: Path, tmp_path: Path) -> Run:
    """Races engines by name, with workers that pretend, each as `behaviour` says."""

    def start(
        *names: str, behaviour: dict[str, Any] | None = None, watch: Any = None, **changes: Any
    ) -> Race:
        worker = pretending(tmp_path, **(behaviour or {}))
        contenders = [as_engine(name, engine) for name in names]
        return race(contenders, {BATCH: images}, quick(tmp_path, worker=worker, **changes), watch)

    return start


# Real workers ---------------------------------------------------------------------------------------


def test_identical_contenders_race_and_nothing_is_lost(
    engine: EngineFile, images: Path, tmp_path: Path
) -> None:
    contenders = [as_engine("one", engine), as_engine("two", engine)]

    found = race(contenders, {BATCH: images}, quick(tmp_path))

    assert found.unavailable == ()
    assert [each.contender for each in found.measurements] == contenders
    for samples in found.samples.values():
        assert np.array(samples).shape == (2, 2, 3)  # launches, rounds, calls
        assert np.min(samples) > 0
    report = report_on(found, environment(found))
    tree = json.loads(canonical_json(report.record()))
    assert [len(each["samples_ms"]) for each in tree["contenders"]] == [12, 12]
    assert {path.name for path in tmp_path.iterdir()} == {
        "inductor",
        "tmp",
        "triton",
        "worker-0.log",
        "worker-1.log",
    }


def interrupted(how: signal.Signals, engine: EngineFile, images: Path, work: Path) -> tuple[int, list[int]]:
    """Start a race whose first round lasts a minute, and end it there; its status and its workers."""
    code = (
        "import json, sys\n"
        "from exporter.benchmark import race\n"
        "from exporter.benchmark.messages import Job\n"
        "from exporter.records import message_from\n"
        "from tests.unit.benchmark.contenders import quick\n"
        "from pathlib import Path\n"
        "job = message_from(Job, json.loads(sys.argv[1]))\n"
        "options = quick(Path(sys.argv[2]), min_round_ms=60e3, max_calls=10**9)\n"
        "race([job.contender], {job.contender.batch: job.images}, options, lambda it: print(it.doing, flush=True))\n"
    )
    from exporter.benchmark.messages import Job

    job = Job(
        contender=as_engine("endless", engine),
        images=images,
        threads=1,
        cores=(0,),
        device="cpu",
        warm_up=QUICK,
    )
    command = [sys.executable, "-c", code, json.dumps(to_tree(job)), str(work)]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        assert process.stdout is not None
        next(line for line in process.stdout if line.startswith("time"))
        workers = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
        process.send_signal(how)
        return process.wait(timeout=30), workers


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL], ids=lambda how: how.name)
def test_interrupted_race_leaves_no_workers(
    how: signal.Signals, engine: EngineFile, images: Path, tmp_path: Path
) -> None:
    status, workers = interrupted(how, engine, images, tmp_path)

    assert status != 0
    assert len(workers) == 1
    assert still_running(workers) == []


# Pretended workers ----------------------------------------------------------------------------------


def test_samples_arrive_by_launch_and_round(run: Run) -> None:
    """The pretender's n-th round is n microseconds longer, and each launch starts a new pretender."""
    found = run("slow", "fast", behaviour={"slow": {"ms": 5.0}}, launches=3)

    assert found.samples == {
        f"slow, batch {BATCH}": (((5.001, 5.0), (5.002, 5.0)),) * 3,
        f"fast, batch {BATCH}": (((1.001, 1.0), (1.002, 1.0)),) * 3,
    }
    assert found.measurements[0].samples_ms == (5.001, 5.0, 5.002, 5.0) * 3


def test_each_launch_is_a_fresh_process(run: Run, tmp_path: Path) -> None:
    log = tmp_path / "pids"

    run("a", "b", behaviour={name: {"log": str(log)} for name in "ab"}, launches=3)

    pids = [int(line) for line in log.read_text(encoding="ascii").split()]
    assert len(set(pids)) == len(pids) == 6
    assert still_running(pids, within_s=0) == []


def test_every_contender_is_visited_once_per_round_in_a_shuffled_order(run: Run) -> None:
    def steps_of(**changes: Any) -> list[Progress]:
        seen: list[Progress] = []
        run(*"abcd", watch=seen.append, rounds=6, **changes)
        return seen

    steps = steps_of()

    assert [step.done for step in steps] == list(range(2 * 4 * 7))
    assert {step.steps for step in steps} == {2 * 4 * 7}
    timed = [step.doing.split()[1] for step in steps if step.doing.startswith("time")]
    rounds = [tuple(timed[start : start + 4]) for start in range(0, len(timed), 4)]
    assert {frozenset(order) for order in rounds} == {frozenset(("a,", "b,", "c,", "d,"))}
    assert len(set(rounds)) > 1
    assert steps == steps_of()  # the seed decides
    assert steps != steps_of(seed=1)


@pytest.mark.parametrize(
    ("request_", "behaviour", "reason", "timeout_s"),
    [
        pytest.param(
            "prepare", "die", "ended with status 3: terminate called: out of luck", 60, id="dies at once"
        ),
        pytest.param(
            "round", "die", "ended with status 3: terminate called: out of luck", 60, id="dies in a round"
        ),
        pytest.param(
            "finish", "die", "ended with status 3: terminate called: out of luck", 60, id="dies at last"
        ),
        pytest.param("round", "hang", '"round" within 1.5 s', 1.5, id="hangs"),
        pytest.param("prepare", "babble", "expected one JSON object", 60, id="babbles"),
        pytest.param("prepare", "refuse", "no compiler here", 60, id="refuses"),
    ],
)
def test_contender_that_fails_is_named_and_the_others_go_on(
    request_: str, behaviour: str, reason: str, timeout_s: float, run: Run
) -> None:
    found = run("bad", "good", "best", behaviour={"bad": {request_: behaviour}}, timeout_s=timeout_s)

    (failed,) = found.unavailable
    assert failed.contender.name == "bad"
    assert reason in failed.reason and "launch 1 of 2" in failed.reason
    assert [each.contender.name for each in found.measurements] == ["good", "best"]
    assert {np.array(samples).shape for samples in found.samples.values()} == {(2, 2, 2)}


def test_failed_profile_keeps_what_was_timed(run: Run) -> None:
    found = run("bad", "good", behaviour={"bad": {"profile": "die"}})

    bad, good = found.measurements
    assert found.unavailable == ()
    assert good.block_ms == {"stem": 0.5, "block_00": 2.0} and bad.block_ms == {}
    assert ["out of luck" in note for note in bad.notes] == [True]


def test_interrupt_by_progress_kills_the_workers(run: Run, tmp_path: Path) -> None:
    log = tmp_path / "pids"

    def interrupt(progress: Progress) -> None:
        if progress.doing.startswith("time"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run("a", behaviour={"a": {"log": str(log)}}, watch=interrupt)

    (pid,) = map(int, log.read_text(encoding="ascii").split())
    assert still_running([pid], within_s=0) == []


def test_batch_sizes_race_one_after_the_other(engine: EngineFile, images: Path, tmp_path: Path) -> None:
    contenders = [replace(as_engine("a", engine), batch=batch) for batch in (1, 8)]
    seen: list[str] = []

    found = race(
        contenders,
        {1: images, 8: images},
        quick(tmp_path, worker=pretending(tmp_path)),
        lambda step: seen.append(step.doing),
    )

    batches = [int(doing.split("batch ")[1].split()[0]) for doing in seen]
    assert batches == [1, 1, 1, 8, 8, 8] * 2
    assert list(found.samples) == ["a, batch 1", "a, batch 8"]


def test_own_input_batch_goes_before_the_common_one(engine: EngineFile, images: Path, tmp_path: Path) -> None:
    """An engine that takes bytes beside one that takes floats; the common batch would be refused for its size."""
    np.save(tmp_path / "three.npy", np.zeros((BATCH + 1, 8), np.float32))

    found = race(
        [replace(as_engine("own", engine), input=images), as_engine("common", engine)],
        {BATCH: tmp_path / "three.npy"},
        quick(tmp_path),
    )

    assert [each.contender.name for each in found.measurements] == ["own"]
    assert "expected 2 images" in found.unavailable[0].reason


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"launches": 1}, "launches: expected at least 2, got 1", id="one launch"),
        pytest.param({"rounds": 0}, "at least one round", id="no rounds"),
        pytest.param({"min_calls": 4}, "min_calls <= max_calls", id="calls"),
        pytest.param({"threads": 10_000}, "threads: expected 1 to", id="threads"),
        pytest.param({"threads": 0}, "threads: expected 1 to", id="no threads"),
    ],
)
def test_options_that_make_no_sense_are_refused(changes: dict[str, Any], words: str, run: Run) -> None:
    with pytest.raises(UsageError, match=words):
        run("a", **changes)


def test_contenders_that_make_no_sense_are_refused(engine: EngineFile, images: Path, tmp_path: Path) -> None:
    options = quick(tmp_path, worker=("nothing is started",))

    with pytest.raises(UsageError, match="at least one contender"):
        race([], {}, options)
    with pytest.raises(UsageError, match=f"2 x a, batch {BATCH}"):
        race([as_engine("a", engine)] * 2, {BATCH: images}, options)
    with pytest.raises(UsageError, match=f"input batch for a, batch {BATCH}"):
        race([as_engine("a", engine)], {BATCH + 1: images}, options)


def test_race_that_memory_cannot_hold_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 2**20})())

    with pytest.raises(UsageError, match=r"got 0\.0 GiB available"):
        run("a")


def test_environment_pins_threads_and_keeps_caches_together(tmp_path: Path) -> None:
    found = worker_environment(3, tmp_path)

    assert {found[name] for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")} == {"3"}
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "TMPDIR"):
        assert Path(found[name]).is_relative_to(tmp_path) and Path(found[name]).is_dir()
    assert os.environ.get("HOME") == found.get("HOME")
