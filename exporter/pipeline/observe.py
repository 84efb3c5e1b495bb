"""Progress of the pipeline's stages, reported to an observer."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Note(Protocol):
    """Receives the progress of one stage."""

    def __call__(self, line: str) -> None:
        """One line about the outcome."""
        ...

    def progress(self, done: int, total: int) -> None:
        """How far it is, where that can be counted."""
        ...


Observer = Callable[[str], AbstractContextManager[Note]]
"""Called with each stage's name; the context that it returns takes notes."""


class _Silent:
    """Takes notes and forgets them."""

    def __call__(self, line: str) -> None: ...

    def progress(self, done: int, total: int) -> None: ...


def silent(stage: str) -> AbstractContextManager[Note]:
    """An observer that says nothing."""
    return nullcontext(_Silent())
