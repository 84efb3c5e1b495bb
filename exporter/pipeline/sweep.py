"""The `sweep` command: a grid of schedules, or the schedule that meets a goal, each built, measured and timed.

In: a base recipe and axes. Out: a `SweepRecord` in the sweep's folder, with every point's bundle. What is finished
stays finished: the same command goes on after any interruption.
"""

import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from exporter.errors import UsageError
from exporter.machine import available_memory_bytes, cpu_model, usable_cores
from exporter.packages import installed
from exporter.pipeline.contenders import dense_contender
from exporter.pipeline.material import Material, material
from exporter.pipeline.measure import DENSE, dense_doubts
from exporter.pipeline.measure_texts import DENSE_FILE, write_dense
from exporter.pipeline.observe import Note, Observer, silent
from exporter.pipeline.origin import check_weights
from exporter.pipeline.plan import Planned, plan_export
from exporter.pipeline.racing import BenchOptions, check_options
from exporter.pipeline.sweep_conditions import name_of, recorded_weights, sweep_conditions
from exporter.pipeline.sweep_point import BuildPoint, TimePoint
from exporter.pipeline.texts import TextTower
from exporter.recipe import Recipe
from exporter.reduction import method
from exporter.rewrite.remove_dead_tokens import RemoveDeadTokens
from exporter.schedule import Geometry, ScheduleRequest
from exporter.sweep import (
    Axes,
    Builder,
    LatencyTable,
    Measurement,
    Point,
    PointResult,
    Progress,
    Quality,
    Solution,
    Space,
    Store,
    SweepRecord,
    Work,
    drive,
    families,
    finished,
    fit,
    front_names,
    grid,
    jobs_that_fit,
    open_store,
    quality_measure,
    segment_weights,
    solve_max_drop,
    solve_min_speedup,
    table_counts,
    table_engines,
    with_dense,
    with_drop_shares,
    write_record,
)
from exporter.validation import TextSet, collect, default_workers

_PROCESS_BYTES = 1 << 30
_WEIGHTS_HELD = 4.5
"""Peak of one build: a process with its libraries, and this many times the weights (measured on ViT-B/16)."""


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What to find a schedule for: at most `limit` points lost, or at least `limit` times faster."""

    kind: Literal["max_drop", "min_speedup"]
    limit: float

    def __post_init__(self) -> None:
        if self.kind == "max_drop" and not self.limit >= 0:
            raise UsageError(f"sweep: expected --max-drop >= 0 points, got {self.limit:g}")
        if self.kind == "min_speedup" and not self.limit > 1:
            raise UsageError(f"sweep: expected --min-speedup above 1, got {self.limit:g}")


@dataclass(frozen=True, kw_only=True)
class SweepRequest:
    """What to sweep.

    Attributes:
        recipe: model, images, batch: what all points share.
        place: where the recipe's model lies now, as MODEL of an export; None for where the recipe says.
        axes: what differs.
        goal: instead of all points of the grid, look for the one that meets it.
        options: how to time.
        jobs: builds at once; None for as many as memory and cores allow.
    """

    recipe: Recipe
    axes: Axes
    place: str | None = None
    goal: Goal | None = None
    options: BenchOptions = field(default_factory=lambda: BenchOptions(launches=3))
    jobs: int | None = None


def sweep(request: SweepRequest, out: str | Path, observe: Observer = silent) -> SweepRecord:
    """Build, measure and time every point, as far as an earlier run has not.

    Args:
        request: what.
        out: the sweep's folder.
        observe: receives the progress of every stage.

    Returns:
        The record, as it is in `sweep.json`; its solution says whether a goal was reached.

    Raises:
        UsageError: axes that make no sense, a folder that is something else, or a goal without images to judge it by.
        WeightsError: what lies at `request.place` has other weights than the points that the folder holds.
    """
    if request.goal is not None and (len(request.axes.targets), len(request.axes.precisions)) != (1, 1):
        raise UsageError("sweep: a goal is looked for on one engine; give one target and one precision")
    if request.recipe.validate.pairs is not None:
        raise UsageError(
            "sweep: points are judged by images, got validate.pairs; give --data DIR, or validate a bundle"
        )
    if request.recipe.model.longest != request.recipe.model.length:
        raise UsageError("sweep: points are of one length of a text; give one --length")
    check_options(request.options)
    points = with_dense(grid(request.axes))
    called = request.recipe.model.model
    if request.place is not None:
        model = replace(request.recipe.model, model=request.place)
        request = replace(request, recipe=replace(request.recipe, model=model))
    recipe = replace(request.recipe, schedule=ScheduleRequest())
    planned = plan_export(recipe, observe)
    name = planned.model.name
    if request.place is not None:
        name = name_of(called)
        check_weights(planned.model, recorded_weights(Path(out)))
    found = material(recipe.validate, recipe.model, planned.model, planned.first_output)
    if request.goal is not None and found is None:
        counted = "texts" if planned.model.takes_texts else "images"
        raise UsageError(f"sweep: a goal needs {counted} to judge schedules by; give --data")
    conditions = sweep_conditions(recipe, planned, found, request.axes.targets, request.options)
    with open_store(out, conditions) as store:
        run = _Sweep(request=request, name=name, planned=planned, found=found, store=store, observe=observe)
        return run.towards(request.goal) if request.goal is not None else run.all_of(points)


@dataclass(kw_only=True)
class _Sweep:
    """One run in an open folder."""

    request: SweepRequest
    name: str
    planned: Planned
    found: Material | None
    store: Store
    observe: Observer
    results: dict[Point, PointResult] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    asked: dict[Point, None] = field(default_factory=dict)

    def all_of(self, points: Sequence[Point]) -> SweepRecord:
        """Every point of the grid."""
        with self._recorded():
            self._drive(points, timed=True)
        return self._record(None, complete=True)

    def towards(self, goal: Goal) -> SweepRecord:
        """The points that lead to a schedule for the goal."""
        with self._recorded():
            space = self._space()
            solve = solve_max_drop if goal.kind == "max_drop" else solve_min_speedup
            solution = solve(goal.limit, space, self._drops, self._speedups)
        return self._record(solution, complete=True)

    def _drops(self, points: Sequence[Point]) -> list[float | None]:
        return [points_lost(result.quality) for result in self._drive(points, timed=False)]

    def _speedups(self, points: Sequence[Point]) -> list[float | None]:
        results = self._drive(points, timed=True)
        return [result.speedup.value if result.speedup is not None else None for result in results]

    def _drive(self, points: Sequence[Point], *, timed: bool) -> list[PointResult]:
        build = BuildPoint(
            recipe=self.request.recipe, bundles=self.store.folder / "bundles", outputs=self._dense_outputs()
        )
        return self._run(points, build, self.store, timed=timed)

    def _run(
        self, points: Sequence[Point], build: BuildPoint, store: Store, *, timed: bool
    ) -> list[PointResult]:
        work = self.store.folder / "work"
        work.mkdir(exist_ok=True)
        race = TimePoint(
            recipe=self.request.recipe,
            planned=self.planned,
            bundles=build.bundles,
            work=work,
            options=self.request.options,
            store=store,
        )
        builder = Builder(
            command=(sys.executable, "-m", "exporter.pipeline.sweep_worker"),
            setup=build.as_json(),
        )
        steps = Work(build=builder, time=race if timed else None, stands=build.stands)
        jobs = self.request.jobs or self._jobs_that_fit()
        asked = with_dense(points) if timed else tuple(points)
        if store is self.store:
            self.asked |= dict.fromkeys(asked)
        with self.observe("sweep") as note:
            listen = _Listener(note)
            results = drive(asked, steps, store, jobs=jobs, on_progress=listen)
            note(f"{len(asked)} points, {listen.reused} of them known already")
        found = {result.point: result for result in results}
        if store is self.store:
            self.results.update(found)
        return [found[point] for point in points]

    def _dense_outputs(self) -> Path | None:
        """What the dense model says about the images, computed once for all points."""
        preprocess = self.planned.model.preprocess
        folder = self.store.folder / "outputs" / self.store.key(Point())[:16]
        if self.found is not None and self.found.texts_alone is not None:
            self._dense_on_texts(self.found.texts_alone, folder)
            return folder
        if self.found is None or preprocess is None:
            return None
        for name, images in self.found.sets.items():
            with self.observe(f"dense model on {images.name}") as note:
                contender = {DENSE: dense_contender(self.planned)}
                workers = default_workers(len(images.names))
                outputs = collect(
                    images, preprocess, contender, folder / name, workers=workers, progress=note.progress
                )
            if name == "data":
                texts = TextTower(self.request.recipe.model)
                self.notes += [*images.notes, *dense_doubts(self.planned, self.found, outputs, texts)]
        return folder

    def _dense_on_texts(self, texts: TextSet, folder: Path) -> None:
        self.notes += texts.notes
        if not (folder / DENSE_FILE).exists():
            with self.observe(f"dense model on {texts.name}"):
                write_dense(self.planned, texts, folder)

    def _space(self) -> Space:
        """Where the solver looks, with a latency table of measured engines."""
        assert self.planned.anatomy is not None
        axes = self.request.axes
        geometries = {
            name: method(name).limited(self.planned.anatomy.geometry, options)
            for name, options in axes.methods.items()
        }
        looked_through = with_drop_shares(families(axes), geometries)
        table = self._table(looked_through[0], geometries[looked_through[0].method])
        return Space(geometries=geometries, families=looked_through, table=table)

    def _table(self, family: Point, geometry: Geometry) -> LatencyTable:
        counts = table_counts(geometry)
        rungs = table_engines(geometry, counts)
        points = [family.scheduled(ScheduleRequest(r_per_layer=merged)) for merged in rungs]
        unmeasured = replace(
            self.store.conditions, building={**self.store.conditions.building, "measured": False}
        )
        build = BuildPoint(recipe=self.request.recipe, bundles=self.store.folder / "ladder", outputs=None)
        results = self._run(points, build, replace(self.store, conditions=unmeasured), timed=True)
        self.notes += [
            f"latency table without {result.name}: {result.failure.error}"
            for result in results
            if result.failure is not None
        ]
        timed = [
            Measurement(
                tokens=result.built.tokens,
                latency_ms=result.timed.latency_ms,
                error_ms=max(result.timed.latency_error_ms or 0.0, 1e-3 * result.timed.latency_ms),
            )
            for result in results
            if result.built is not None and result.timed is not None
        ]
        return fit(timed, counts, self._weights())

    def _weights(self) -> tuple[float, ...]:
        """How much of a block runs in each segment; nothing of the last one where the head reads a few tokens only."""
        anatomy = self.planned.anatomy
        assert anatomy is not None
        weights = segment_weights(anatomy.workload)
        trims = RemoveDeadTokens.name not in self.request.recipe.disable_passes
        ends_early = trims and anatomy.blocks[-1].tokens_read is not None
        return (*weights[:-1], 0.0) if ends_early else weights

    def _jobs_that_fit(self) -> int:
        tensors = self.planned.program.graph_module.state_dict().values()
        weights = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return jobs_that_fit(
            round(_PROCESS_BYTES + _WEIGHTS_HELD * weights), available_memory_bytes(), len(usable_cores())
        )

    @contextmanager
    def _recorded(self) -> Iterator[None]:
        """Whatever stops the run, `sweep.json` has what is finished."""
        try:
            yield
        except BaseException:
            done = {result.point: result for result in finished(tuple(self.asked), self.store)}
            self.results = {**done, **self.results}
            self._record(None, complete=False)
            raise
        finally:
            shutil.rmtree(self.store.folder / "work", ignore_errors=True)

    def _record(self, solution: Solution | None, *, complete: bool) -> SweepRecord:
        results = tuple(self.results.values())
        measure = quality_measure(results)
        model = self.planned.model
        record = SweepRecord(
            model=self.name,
            weights_sha256=model.weights_sha256,
            data=self.found.name if self.found else None,
            counted="texts" if model.takes_texts else "images",
            quality_measure=measure,
            environment={
                "cpu": cpu_model(),
                "threads": self.request.options.threads or len(usable_cores()),
                "packages": installed(),
            },
            points=results,
            front=front_names(results, measure) if measure is not None else (),
            solution=solution,
            complete=complete,
            notes=tuple(dict.fromkeys(self.notes)),
        )
        write_record(self.store.folder, record)
        return record


def points_lost(quality: Quality) -> float | None:
    """What a solver weighs: points of top-1; without labels, percent of disagreement; else of cosine lost."""
    if quality.difference is not None:
        return -quality.difference.top1
    if quality.fidelity is None:
        return None
    if quality.fidelity.top1_agreement is not None:
        return 100 - quality.fidelity.top1_agreement
    return 100 * (1 - quality.fidelity.cosine_mean)


class _Listener:
    """Passes the progress of a sweep on to the observer, and counts reused points."""

    def __init__(self, note: Note) -> None:
        self._note = note
        self.reused = 0

    def __call__(self, progress: Progress) -> None:
        self._note.progress(progress.done, progress.total)
        self.reused += progress.kind == "reused"
        if progress.kind in ("failed", "warning"):
            self._note(f"{progress.kind}: {progress.name}: {progress.message};")
