"""Read an engine's matches beside its outputs, for the parity check.

The probe is a second engine, of the same graph with its matches as outputs. It is built when it is first asked, with
the first one's timing cache, so that the same kernels are chosen for the same layers, and leaves nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from exporter.signature import Array
from exporter.targets.runner import Runner


@dataclass(kw_only=True)
class EngineProbe:
    """A runner over an engine that returns everything.

    Attributes:
        build: builds that engine in an empty folder.
    """

    build: Callable[[Path], Runner]
    _runner: Runner | None = field(default=None, repr=False, compare=False)

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs by name, as many rows as the inputs have."""
        if self._runner is None:
            with TemporaryDirectory(prefix="exporter-trt-probe-") as folder:
                self._runner = self.build(Path(folder))
                self._runner.load()  # the engine is in memory then
        return self._runner(inputs)
