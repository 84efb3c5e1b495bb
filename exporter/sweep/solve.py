"""From a goal to a schedule: "lose at most X points" and "be at least Y times faster".

Points are measured through `drive`, a few at a time. What a search assumes about order (more merging loses more and
runs faster) only decides what is measured next: the answer and all that it is compared with have been measured.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

from exporter.errors import UsageError
from exporter.sweep.candidates import Candidate, Space, candidates, checked_families
from exporter.sweep.grid import Point
from exporter.sweep.record import Evaluation, Solution

Measure = Callable[[Sequence[Point]], Sequence[float | None]]
"""One figure per point, None where the point failed. A batch, so that builds can run beside each other."""

PATIENCE = 2
"""How many schedules beyond the first one that loses too much are tried, since accuracy is noisy."""

_GUESSES = 3
"""Measurements per family that the latency table chooses; from then on the search halves."""


def solve_max_drop(max_drop: float, space: Space, drops: Measure, speedups: Measure) -> Solution:
    """The fastest schedule that loses at most so much.

    In each family, r is found by bisection, and a few larger ones are tried as well; then the speed of each family's
    answer is measured. `drops` is asked about all families at once, about 9 times.

    Args:
        max_drop: in points.
        space: where to look.
        drops: points lost against dense.
        speedups: over the dense engine.

    Raises:
        UsageError: the limit is negative, or there is nowhere to look.
    """
    if max_drop < 0:
        raise UsageError(f"sweep: expected --max-drop >= 0 points, got {max_drop:g}")
    ledger = _Ledger()
    searches = [_Search(candidates(space, family)) for family in checked_families(space)]
    while asked := [(search, each) for search in searches if (each := search.next_beyond()) is not None]:
        points = [search.candidates[position] for search, position in asked]
        for (search, position), drop in zip(asked, ledger.measure("drop", points, drops), strict=True):
            search.tested[position] = drop is not None and drop <= max_drop
    answers = [search.candidates[good[-1]] for search in searches if (good := search.good())]
    ledger.measure("measured_speedup", answers, speedups)
    return _most_speed(max_drop, ledger, answers)


def solve_min_speedup(min_speedup: float, space: Space, drops: Measure, speedups: Measure) -> Solution:
    """The most accurate schedule that is at least so much faster.

    In each family, the latency table says where to start; measurements then close in on the least merging that is
    fast enough. What these answers lose decides between the families.

    Args:
        min_speedup: over the dense engine.
        space: where to look; has a table.
        drops: points lost against dense.
        speedups: over the dense engine.

    Raises:
        UsageError: the limit is not above 1, or there is no table or nowhere to look.
    """
    if not min_speedup > 1:
        raise UsageError(f"sweep: expected --min-speedup above 1, got {min_speedup:g}")
    if space.table is None:
        raise UsageError("sweep: --min-speedup needs a latency table; measure one first")
    ledger = _Ledger()
    searches = [
        _Search(tuple(each for each in candidates(space, family) if each.predicted_speedup is not None))
        for family in checked_families(space)
    ]
    while asked := [
        (search, each) for search in searches if (each := search.next_below(min_speedup, ledger)) is not None
    ]:
        points = [search.candidates[position] for search, position in asked]
        measured = ledger.measure("measured_speedup", points, speedups)
        for (search, position), speedup in zip(asked, measured, strict=True):
            search.tested[position] = speedup is not None and speedup >= min_speedup
    answers = [search.candidates[good[0]] for search in searches if (good := search.good())]
    ledger.measure("drop", answers, drops)
    return _least_drop(min_speedup, ledger, answers)


@dataclass(kw_only=True)
class _Ledger:
    """Everything that was measured, each figure of each point once."""

    found: dict[Point, Evaluation] = field(default_factory=dict)

    def measure(
        self, what: Literal["drop", "measured_speedup"], asked: Sequence[Candidate], measure: Measure
    ) -> list[float | None]:
        points = [each.point for each in asked]
        for candidate, figure in zip(asked, measure(points) if points else [], strict=True):
            entry = self.found.setdefault(candidate.point, _evaluation(candidate))
            self.found[candidate.point] = (
                replace(entry, drop=figure) if what == "drop" else replace(entry, measured_speedup=figure)
            )
        return [getattr(self.found[point], what) for point in points]

    def of(self, candidate: Candidate) -> Evaluation:
        return self.found.get(candidate.point, _evaluation(candidate))


@dataclass
class _Search:
    """A search through one family: which positions were tested, and whether they met the goal."""

    candidates: tuple[Candidate, ...]
    tested: dict[int, bool] = field(default_factory=dict)

    def good(self) -> list[int]:
        """The positions that met the goal, in order."""
        return sorted(position for position, good in self.tested.items() if good)

    def next_beyond(self) -> int | None:
        """What to test next to find the last good position; None when it is found."""
        low = max(self.good(), default=-1)
        high = min(
            (position for position, good in self.tested.items() if not good and position > low),
            default=len(self.candidates),
        )
        if high - low > 1:
            return (low + high) // 2
        beyond = range(high + 1, min(high + 1 + PATIENCE, len(self.candidates)))
        return next((position for position in beyond if position not in self.tested), None)

    def next_below(self, goal: float, ledger: _Ledger) -> int | None:
        """What to test next to find the first good position; None when it is found."""
        high = min(self.good(), default=len(self.candidates))
        low = max(
            (position for position, good in self.tested.items() if not good and position < high), default=-1
        )
        if high - low <= 1:
            return None
        open_positions = range(low + 1, high)
        if len(self.tested) >= _GUESSES:
            return (low + high) // 2
        factor = self._correction(ledger)
        predicted = {each: factor * (self.candidates[each].predicted_speedup or 0) for each in open_positions}
        likely = [each for each in open_positions if predicted[each] >= goal]
        return likely[0] if likely else max(open_positions, key=lambda each: predicted[each])

    def _correction(self, ledger: _Ledger) -> float:
        """By how much the table was off where it was tested last."""
        for position in reversed(self.tested):
            evaluation = ledger.of(self.candidates[position])
            if evaluation.measured_speedup and evaluation.predicted_speedup:
                return evaluation.measured_speedup / evaluation.predicted_speedup
        return 1.0


def _most_speed(limit: float, ledger: _Ledger, answers: Sequence[Candidate]) -> Solution:
    solution = partial(Solution, goal="max_drop", limit=limit, evaluated=tuple(ledger.found.values()))
    timed = [each for each in map(ledger.of, answers) if each.measured_speedup is not None]
    best = max(timed, key=lambda each: (each.measured_speedup or 0, -(each.drop or 0)), default=None)
    if best is not None and (best.measured_speedup or 0) > 1:
        return solution(best=best, reached=True, explanation=_said(best))
    if best is not None:
        why = f"no schedule that loses at most {limit:g} points is faster than dense; best was {_said(best)}"
    elif answers:
        why = f"no schedule that loses at most {limit:g} points could be timed"
        best = ledger.of(answers[0])
    else:
        known = [each for each in ledger.found.values() if each.drop is not None]
        best = min(known, key=lambda each: each.drop or 0, default=None)
        measured = f"none of {len(ledger.found)} schedules measured"
        why = f"{measured} loses at most {limit:g} points; best was {_said(best)}"
    return solution(best=best, reached=False, explanation=why)


def _least_drop(limit: float, ledger: _Ledger, answers: Sequence[Candidate]) -> Solution:
    solution = partial(Solution, goal="min_speedup", limit=limit, evaluated=tuple(ledger.found.values()))
    fast_enough = [ledger.of(each) for each in answers]
    if known := [each for each in fast_enough if each.drop is not None]:
        best = min(known, key=lambda each: (each.drop or 0, -(each.measured_speedup or 0)))
        return solution(best=best, reached=True, explanation=_said(best))
    if answers:
        best = ledger.of(max(answers, key=lambda each: sum(each.schedule.tokens)))
        why = f"{_said(best)}; quality was not measured, so that it is the one that merges least"
        return solution(best=best, reached=True, explanation=why)
    if not ledger.found:
        why = "the latency table covers no schedule of these families; measure engines with fewer tokens"
        return solution(best=None, reached=False, explanation=why)
    timed = [each for each in ledger.found.values() if each.measured_speedup is not None]
    nearest = max(timed, key=lambda each: each.measured_speedup or 0, default=None)
    measured = f"none of {len(ledger.found)} schedules measured"
    why = f"{measured} is {limit:g}x as fast as dense; best was {_said(nearest)}"
    return solution(best=nearest, reached=False, explanation=why)


def _said(evaluation: Evaluation | None) -> str:
    if evaluation is None:
        return "none, since nothing could be measured"
    said = [
        f"{evaluation.measured_speedup:.2f}x measured" if evaluation.measured_speedup is not None else "",
        f"{evaluation.predicted_speedup:.2f}x predicted" if evaluation.predicted_speedup is not None else "",
        f"{evaluation.drop:.2f} points lost" if evaluation.drop is not None else "",
    ]
    lists = [f"{option[2:].replace('-', ' ')} {counts}" for option, counts in evaluation.lists.items()]
    return f"{evaluation.name} ({', '.join(lists)}: {', '.join(filter(None, said))})"


def _evaluation(candidate: Candidate) -> Evaluation:
    return Evaluation(
        name=candidate.point.name,
        r_per_layer=candidate.schedule.lists.r_per_layer or (),
        drop_per_layer=candidate.schedule.lists.drop_per_layer,
        predicted_speedup=candidate.predicted_speedup,
    )
