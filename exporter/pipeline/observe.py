"""How the pipeline tells of its progress, without knowing who listens."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

Note = Callable[[str], None]
Observer = Callable[[str], AbstractContextManager[Note]]
"""Called with each stage's name; the context it returns takes one line about the outcome."""


def silent(stage: str) -> AbstractContextManager[Note]:
    """An observer that says nothing."""
    return nullcontext(lambda line: None)
