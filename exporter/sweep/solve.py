"""From a goal to a schedule: "lose at most X points" and "be at least Y times faster".

Where it stands on the road: above `drive`, whose results it asks for a few at a time. Whatever a search assumes about
order (more merging loses more and runs faster) only decides what is measured next: the answer itself has always been
measured, and so has everything that it is compared with.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from exporter.errors import UsageError
from exporter.sweep.candidates import Candidate, Family, Space, candidates, checked_families
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
    answers = [search.candidates[last] for search in searches if (last := search.last_good()) is not None]
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
        raise UsageError("sweep: --min-speedup needs a latency table; measure a ladder first")
    ledger = _Ledger()
    searches = [_Search(_reached_by_table(space, family)) for family in checked_families(space)]
    while asked := [
        (search, each) for search in searches if (each := search.next_below(min_speedup, ledger)) is not None
    ]:
        points = [search.candidates[position] for search, position in asked]
        measured = ledger.measure("measured_speedup", points, speedups)
        for (search, position), speedup in zip(asked, measured, strict=True):
            search.tested[position] = speedup is not None and speedup >= min_speedup
    answers = [search.candidates[first] for search in searches if (first := search.first_good()) is not None]
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

    def last_good(self) -> int | None:
        return max((position for position, good in self.tested.items() if good), default=None)

    def first_good(self) -> int | None:
        return min((position for position, good in self.tested.items() if good), default=None)

    def next_beyond(self) -> int | None:
        """What to test next to find the last good position; None when it is found."""
        last = self.last_good()
        low = -1 if last is None else last
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
        first = self.first_good()
        high = len(self.candidates) if first is None else first
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
    timed = [each for each in map(ledger.of, answers) if each.measured_speedup is not None]
    best = max(timed, key=lambda each: (each.measured_speedup or 0, -(each.drop or 0)), default=None)
    if best is not None and (best.measured_speedup or 0) > 1:
        return _solution("max_drop", limit, best, True, f"{_said(best)}", ledger)
    evaluated = ledger.found.values()
    if best is not None:
        why = f"no schedule that loses at most {limit:g} points is faster than dense; best was {_said(best)}"
    elif answers:
        why = f"no schedule that loses at most {limit:g} points could be timed"
        best = ledger.of(answers[0])
    else:
        known = [each for each in evaluated if each.drop is not None]
        best = min(known, key=lambda each: each.drop or 0, default=None)
        why = f"none of {len(evaluated)} schedules measured loses at most {limit:g} points; best was {_said(best)}"
    return _solution("max_drop", limit, best, False, why, ledger)


def _least_drop(limit: float, ledger: _Ledger, answers: Sequence[Candidate]) -> Solution:
    merged = {each.point.name: sum(each.schedule.tokens) for each in answers}
    fast_enough = [ledger.of(each) for each in answers]
    if known := [each for each in fast_enough if each.drop is not None]:
        best = min(known, key=lambda each: (each.drop or 0, -(each.measured_speedup or 0)))
        return _solution("min_speedup", limit, best, True, _said(best), ledger)
    if fast_enough:
        best = max(fast_enough, key=lambda each: merged[each.name])
        why = f"{_said(best)}; quality was not measured, so that it is the one that merges least"
        return _solution("min_speedup", limit, best, True, why, ledger)
    if not ledger.found:
        why = "the latency table covers no schedule of these families; measure a ladder that reaches lower"
        return _solution("min_speedup", limit, None, False, why, ledger)
    timed = [each for each in ledger.found.values() if each.measured_speedup is not None]
    nearest = max(timed, key=lambda each: each.measured_speedup or 0, default=None)
    why = f"none of {len(ledger.found)} schedules measured is {limit:g}x as fast as dense; best was {_said(nearest)}"
    return _solution("min_speedup", limit, nearest, False, why, ledger)


def _solution(
    goal: Literal["max_drop", "min_speedup"],
    limit: float,
    best: Evaluation | None,
    reached: bool,
    explanation: str,
    ledger: _Ledger,
) -> Solution:
    return Solution(
        goal=goal,
        limit=limit,
        best=best,
        reached=reached,
        explanation=explanation,
        evaluated=tuple(ledger.found.values()),
    )


def _said(evaluation: Evaluation | None) -> str:
    if evaluation is None:
        return "none, since nothing could be measured"
    said = [
        f"{evaluation.measured_speedup:.2f}x measured" if evaluation.measured_speedup is not None else "",
        f"{evaluation.predicted_speedup:.2f}x predicted" if evaluation.predicted_speedup is not None else "",
        f"{evaluation.drop:.2f} points lost" if evaluation.drop is not None else "",
    ]
    merged = ",".join(map(str, evaluation.r_per_layer))
    return f"{evaluation.name} (r per layer {merged}: {', '.join(filter(None, said))})"


def _evaluation(candidate: Candidate) -> Evaluation:
    return Evaluation(
        name=candidate.point.name,
        r_per_layer=candidate.schedule.removed,
        predicted_speedup=candidate.predicted_speedup,
    )


def _reached_by_table(space: Space, family: Family) -> tuple[Candidate, ...]:
    return tuple(each for each in candidates(space, family) if each.predicted_speedup is not None)
