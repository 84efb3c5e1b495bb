"""How far a build is: TensorRT's tree of phases as one number.

TensorRT reports nested phases with a number of steps each. A phase's steps are taken as equally long; the step that
runs counts as far as its own sub-phase is.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from exporter.targets.target import Progress

PARTS = 1000
"""What a whole build is divided into."""


@dataclass(kw_only=True)
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


class PhaseTree:
    """The phases that are running.

    Safe to call from several threads, which TensorRT does. The number only grows, since a bar that runs backwards
    says nothing.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._phases: dict[str, _Phase] = {}
        self._reached = -1
        self._lock = threading.Lock()
        self.interrupted: BaseException | None = None

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """A phase begins, within another one or on its own."""
        with self._keeping():
            with self._lock:
                self._phases[name] = _Phase(parent=parent, steps=steps)
            self._report()

    def step(self, name: str, step: int) -> bool:
        """Step number `step` of a phase is complete. False asks TensorRT to stop."""
        with self._keeping():
            with self._lock:
                if name in self._phases:
                    self._phases[name].done = step + 1
            self._report()
        return self.interrupted is None

    def finish(self, name: str) -> None:
        """A phase ends, perhaps before its last step."""
        with self._keeping():
            with self._lock:
                phase = self._phases.pop(name, None)
            if phase is not None and phase.parent is None:
                self._report(PARTS)

    @contextmanager
    def _keeping(self) -> Iterator[None]:
        """Exceptions, an interrupt among them, cannot cross TensorRT's frames: they are kept, and end the build."""
        try:
            yield
        except BaseException as error:
            self.interrupted = self.interrupted or error

    def _report(self, at_least: int = 0) -> None:
        with self._lock:
            roots = [name for name, phase in self._phases.items() if phase.parent is None]
            now = max([at_least, *(int(PARTS * self._fraction(name)) for name in roots)])
            if (roots or at_least) and now > self._reached and self.interrupted is None:
                self._reached = now
                self._progress(now, PARTS)

    def _fraction(self, name: str) -> float:
        phase = self._phases[name]
        inner = [self._fraction(child) for child, each in self._phases.items() if each.parent == name]
        return min(1.0, (phase.done + max(inner, default=0.0)) / max(1, phase.steps))


def monitor(trt: Any, tree: PhaseTree) -> Any:
    """TensorRT's own interface over a tree."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            tree.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return tree.step(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            tree.finish(phase_name)

    return Monitor()
