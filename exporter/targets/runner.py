"""What runs an artifact: numpy in, numpy out.

In: an artifact's file and its signature. A runner holds no engine until it is loaded, travels with a pickle without
it, and imports its engine's library only then.
"""

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np

from exporter.errors import TargetUnavailableError, UsageError
from exporter.signature import Array, Inputs, Signature
from exporter.targets.batches import join, split

Device = Literal["cpu", "cuda"]

Run = Callable[[Inputs], Mapping[str, Array]]
"""What runs any number of items, as a runner does: outputs by name."""


@dataclass(kw_only=True)
class Runner(ABC):
    """Runs an artifact on any number of items, in batches that its engine takes.

    The last batch is padded by repeating its last row, and the padding is cut off again. As a context manager, a
    runner loads its engine on entry and closes it on exit.

    Attributes:
        path: of the artifact's main file.
        signature: inputs and outputs; an engine's results beyond the outputs are matches, left out.
        device: where it computes.
        threads: on the CPU, 0 for the engine's choice; None where the engine cannot be told.
        spinning: whether idle threads spin, which is fastest alone on a machine and slowest beside another pool; where
            the engine can be told.
    """

    path: Path
    signature: Signature
    device: Device = "cpu"
    threads: int | None = 0
    spinning: bool = True
    _engine: Any = field(default=None, repr=False, compare=False)

    def __call__(self, inputs: Inputs) -> dict[str, Array]:
        """Outputs by name, as many rows as the inputs have; the engine is loaded if it is not yet.

        Args:
            inputs: (n, ...) for every input, by name; or one alone, where there is one input.

        Raises:
            UsageError: other names, shapes or dtypes than the engine takes, or no rows.
            BundleError: the artifact is damaged.
            TargetUnavailableError: it does not run here.
        """
        given = self.signature.named(inputs)
        count = len(next(iter(given.values())))
        smallest, largest = self._batches()
        batches = split(given, smallest, min(largest, max(count, smallest)))
        return join(self._run(self.engine, batches), self.signature.outputs, count)

    def load(self) -> None:
        """Load the engine now, which the first call does otherwise.

        Raises:
            BundleError: the artifact is damaged.
            TargetUnavailableError: it does not run here.
        """
        _ = self.engine

    def close(self) -> None:
        """Let go of the engine and its memory; a later call loads it again."""
        self._engine = None

    @property
    def engine(self) -> Any:
        """The library's own object; loaded on first use."""
        if self._engine is None:
            self._engine = self._open()
        return self._engine

    def enqueue(self, inputs: Inputs, *, cuda_graph: bool) -> Callable[[], object]:
        """A call on one batch that lies on the GPU, enqueued on PyTorch's current stream: no copies, no waiting.

        Args:
            inputs: one batch of the engine's; copied to the GPU now.
            cuda_graph: replay a recording of the launches.

        Returns:
            The call. It returns the output tensors, which the next one overwrites.

        Raises:
            UsageError: not a batch of the engine's.
            TargetUnavailableError: the engine does not work on a GPU.
        """
        raise TargetUnavailableError(
            f"{self.path.name}: its engine runs on the CPU, where nothing is enqueued"
        )

    def profile(self, inputs: Inputs, *, calls: int, folder: Path) -> Mapping[str, float] | None:
        """Milliseconds of one call by block: `stem`, `block_00` and so on, `head`; None if the engine does not say.

        Args:
            inputs: one batch.
            calls: to take the median over.
            folder: for files of a profiler, which do not stay.

        Raises:
            TargetUnavailableError: the engine says it on other devices only.
        """
        return None

    def __enter__(self) -> Self:
        self.load()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_engine": None}

    def _batches(self) -> tuple[int, int]:
        """Smallest and largest batch of the engine."""
        batch = self.signature.batch
        return (1, sys.maxsize) if isinstance(batch, str) else (batch, batch)

    def _one_batch(self, inputs: Inputs) -> dict[str, Array]:
        """Inputs that are one batch of the engine's own size, C-contiguous.

        Raises:
            UsageError: another number of rows, names, shapes or dtypes.
        """
        given, batch = self.signature.named(inputs), self.signature.batch
        for name, array in given.items():
            if isinstance(batch, int) and len(array) != batch:
                raise UsageError(f"{name}: expected a batch of {batch}, got {len(array)} rows")
        return {name: np.ascontiguousarray(array) for name, array in given.items()}

    @abstractmethod
    def _open(self) -> Any:
        """Load the engine."""

    @abstractmethod
    def _run(self, engine: Any, batches: Sequence[Mapping[str, Array]]) -> Sequence[Sequence[Array]]:
        """The results of every batch, in the order of the outputs."""
