"""The race: every contender in a process of its own, timed in turns, several times over.

In: contenders and an input batch per batch size. Out: a `Race` with every sample. A launch starts one fresh process
per contender, one after the other, and warms each of them up; then, for as many rounds as asked, visits them in an
order that is shuffled each time. Nothing of the race's own runs while one is timed: the others wait for input, and
after each round comes a rest, since thread pools keep spinning after their last call (ONNX Runtime's for some 30 ms).
Contenders of different batch sizes are never compared, so they race one batch size at a time.
"""

import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from exporter.benchmark.clock import Device
from exporter.benchmark.contender import Contender
from exporter.benchmark.cores import LoadMeter, pick_cores
from exporter.benchmark.measurement import Launch, Measurement, Race, Unavailable
from exporter.benchmark.memory import check_memory
from exporter.benchmark.messages import Job, WarmUp
from exporter.errors import UsageError
from exporter.machine import available_memory_bytes
from exporter.processes.child import Child, ChildFailure
from exporter.records import to_tree

WORKER = (sys.executable, "-m", "exporter.benchmark.worker")

LEAST_LAUNCHES = 2
"""Processes of the same program differ by more than rounds do: one launch says nothing about its own error."""

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass(frozen=True, kw_only=True)
class RaceOptions:
    """How to race.

    Attributes:
        threads: of each contender.
        work: an existing folder for logs and compiler caches; nothing is written elsewhere.
        launches: processes per contender.
        rounds: per launch.
        min_round_ms: of calls in a round, at least.
        min_calls: in a round, at least.
        max_calls: in a round, at most, whatever `min_round_ms` says.
        device: `cpu` or `cuda`.
        warm_up: when a contender is warm.
        rest_ms: between rounds.
        timeout_s: for any one answer of a contender; loading, compiling and warming up are one.
        seed: of the order of visits.
        worker: the command that runs a worker.
    """

    threads: int
    work: Path
    launches: int = 5
    rounds: int = 5
    min_round_ms: float = 500.0
    min_calls: int = 3
    max_calls: int = 1000
    device: Device = "cpu"
    warm_up: WarmUp = field(default_factory=WarmUp)
    rest_ms: float = 100.0
    timeout_s: float = 900.0
    seed: int = 0
    worker: tuple[str, ...] = WORKER


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Progress of a race: `done` of `steps`, and the next step in words."""

    done: int
    steps: int
    doing: str


OnProgress = Callable[[Progress], None]


@dataclass(kw_only=True)
class _Entry:
    """A contender while it races, and its place among all of them."""

    place: int
    contender: Contender
    images: Path
    launches: list[Launch] = field(default_factory=list)
    notes: set[str] = field(default_factory=set)
    device_facts: Mapping[str, str | int | float] = field(default_factory=dict)
    block_ms: Mapping[str, float] = field(default_factory=dict)
    failure: str | None = None


@dataclass(kw_only=True)
class _Runner:
    """A contender's process in one launch."""

    entry: _Entry
    process: Child
    prepared: Mapping[str, Any] = field(default_factory=dict)
    rounds: list[tuple[float, ...]] = field(default_factory=list)
    other_loads: list[float] = field(default_factory=list)


def race(
    contenders: Sequence[Contender],
    inputs: Mapping[int, Path],
    options: RaceOptions,
    on_progress: OnProgress | None = None,
) -> Race:
    """Time contenders against each other.

    A contender that cannot be loaded here, dies or hangs is `unavailable`, with the reason, and the others go on.

    Args:
        contenders: names are unique within a batch size.
        inputs: input batches by batch size, as `.npy` files.
        options: how.
        on_progress: called before each step; an exception that it raises ends the race.

    Raises:
        UsageError: options or contenders make no sense, an input batch is missing, or memory cannot hold the
            processes of one batch size.
    """
    cores = _check(contenders, inputs, options)
    entries = [
        _Entry(place=place, contender=each, images=each.input or inputs[each.batch])
        for place, each in enumerate(contenders)
    ]
    ground = _Ground(options, cores, on_progress or (lambda _: None), len(entries))
    for launch in range(options.launches):
        for batch in dict.fromkeys(each.batch for each in contenders):
            ground.launch(launch, [each for each in entries if each.contender.batch == batch])
    return Race(
        measurements=tuple(
            Measurement(
                contender=each.contender,
                launches=tuple(each.launches),
                notes=tuple(sorted(each.notes)),
                block_ms=each.block_ms,
            )
            for each in entries
            if each.failure is None
        ),
        unavailable=tuple(
            Unavailable(contender=each.contender, reason=each.failure)
            for each in entries
            if each.failure is not None
        ),
        threads=options.threads,
        cores=cores,
        device=options.device,
        device_facts={each.contender.label: each.device_facts for each in entries if each.device_facts},
    )


class _Ground:
    """Runs the launches of a race, and counts its steps."""

    def __init__(
        self, options: RaceOptions, cores: tuple[int, ...], on_progress: OnProgress, entries: int
    ) -> None:
        self._options = options
        self._cores = cores
        self._on_progress = on_progress
        self._done = 0
        self._steps = entries * options.launches * (1 + options.rounds)
        self._shuffle = random.Random(options.seed)
        self._environment = worker_environment(options.threads, options.work)

    def launch(self, number: int, entries: list[_Entry]) -> None:
        """Start a fresh process per contender that has not failed, time them, and kill all of them in any case."""
        runners: list[_Runner] = []
        try:
            for entry in self._shuffle.sample(entries, len(entries)):
                self._attempt(number, entry, "prepare", partial(self._prepare, entry, runners))
            for _ in range(self._options.rounds):
                for runner in self._shuffle.sample(runners, len(runners)):
                    self._attempt(number, runner.entry, "time", partial(self._round, runner))
            for runner in runners:
                self._attempt(number, runner.entry, "", partial(self._finish, runner))
            if number + 1 == self._options.launches:
                for runner in runners:
                    self._profile(runner)
        finally:
            for runner in runners:
                runner.process.kill()

    def _attempt(self, number: int, entry: _Entry, verb: str, step: Callable[[], None]) -> None:
        """Run one step of a contender, unless it failed before; record a failure."""
        label = entry.contender.label
        if verb:
            doing = f"{verb} {label} (launch {number + 1} of {self._options.launches})"
            self._on_progress(Progress(done=self._done, steps=self._steps, doing=doing))
            self._done += 1
        if entry.failure is not None:
            return
        try:
            step()
        except ChildFailure as failure:
            entry.failure = f"{failure} (launch {number + 1} of {self._options.launches})"

    def _prepare(self, entry: _Entry, runners: list[_Runner]) -> None:
        options = self._options
        log = options.work / f"worker-{entry.place}.log"
        runner = _Runner(entry=entry, process=Child(options.worker, self._environment, log))
        runners.append(runner)
        job = Job(
            contender=entry.contender,
            images=entry.images,
            threads=options.threads,
            cores=self._cores,
            device=options.device,
            warm_up=options.warm_up,
        )
        request = {"ask": "prepare", "job": to_tree(job)}
        runner.prepared = runner.process.ask(request, timeout_s=options.timeout_s)
        entry.notes.update(runner.prepared["notes"])

    def _round(self, runner: _Runner) -> None:
        options = self._options
        time.sleep(options.rest_ms / 1000)
        request = {
            "ask": "round",
            "min_ms": options.min_round_ms,
            "min_calls": options.min_calls,
            "max_calls": options.max_calls,
        }
        meter = LoadMeter(self._cores)
        answer = runner.process.ask(request, timeout_s=options.timeout_s)
        runner.other_loads.append(meter.read(answer["cpu_ms"] / 1000))
        runner.rounds.append(tuple(answer["samples_ms"]))

    def _finish(self, runner: _Runner) -> None:
        answer = runner.process.ask({"ask": "finish"}, timeout_s=self._options.timeout_s)
        runner.entry.device_facts = answer["device"]
        runner.entry.launches.append(
            Launch(
                **{name: value for name, value in runner.prepared.items() if name != "notes"},
                rounds=tuple(runner.rounds),
                other_load=sum(runner.other_loads) / len(runner.other_loads),
                peak_memory_bytes=answer["peak_memory_bytes"],
                peak_since=answer["peak_since"],
            )
        )

    def _profile(self, runner: _Runner) -> None:
        """Profile an engine by block. A failure is noted, and what was timed is kept."""
        if runner.entry.contender.engine is None or runner.entry.failure is not None:
            return
        request = {"ask": "profile", "folder": str(self._options.work.absolute())}
        try:
            answer = runner.process.ask(request, timeout_s=self._options.timeout_s)
        except ChildFailure as failure:
            runner.entry.notes.add(f"no time per block: {failure}")
        else:
            runner.entry.block_ms = answer["block_ms"]


def worker_environment(threads: int, work: Path) -> dict[str, str]:
    """Environment variables of a worker: pinned thread counts, and every cache below `work`.

    Args:
        threads: for every numeric library.
        work: an existing folder.
    """
    caches = {
        "TORCHINDUCTOR_CACHE_DIR": work / "inductor",
        "TRITON_CACHE_DIR": work / "triton",
        "TMPDIR": work / "tmp",
    }
    for folder in caches.values():
        folder.mkdir(parents=True, exist_ok=True)
    return {
        **os.environ,
        **{name: str(threads) for name in _THREAD_VARIABLES},
        **{name: str(folder.absolute()) for name, folder in caches.items()},
        "TORCHINDUCTOR_COMPILE_THREADS": "1",  # compile in the worker itself: no pool outlives it
    }


def _check(
    contenders: Sequence[Contender], inputs: Mapping[int, Path], options: RaceOptions
) -> tuple[int, ...]:
    """The cores to use, if options, contenders, inputs and memory allow the race."""
    if options.launches < LEAST_LAUNCHES:
        raise UsageError(f"launches: expected at least {LEAST_LAUNCHES}, got {options.launches}")
    if options.rounds < 1 or not 1 <= options.min_calls <= options.max_calls:
        raise UsageError(
            "rounds and calls: expected at least one round, and 1 <= min_calls <= max_calls, got "
            f"{options.rounds}, {options.min_calls} and {options.max_calls}"
        )
    if not contenders:
        raise UsageError("benchmark: expected at least one contender, got none")
    (label, times), *_ = Counter(each.label for each in contenders).most_common(1)
    if times > 1:
        raise UsageError(f"contenders: expected names that differ within a batch size, got {times} x {label}")
    for each in contenders:
        if each.input is None and each.batch not in inputs:
            raise UsageError(f"inputs: expected an input batch for {each.label}, got none")
    cores = pick_cores(options.threads)
    check_memory(contenders, available_memory_bytes())
    return cores
