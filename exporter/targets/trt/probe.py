"""Read an engine's matches beside its outputs, for the parity check.

The probe is a second engine, of the same graph with its matches as outputs. It is built when it is first asked, with
the first one's timing cache, so that the same kernels are chosen for the same layers, and leaves nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from exporter.signature import Array, Signature
from exporter.targets.trt.build import BuildRequest
from exporter.targets.trt.build_files import build_files
from exporter.targets.trt.files import ENGINE, ONNX
from exporter.targets.trt.library import tensorrt
from exporter.targets.trt.runner import TrtRunner


@dataclass(kw_only=True)
class TrtProbe:
    """A runner over an engine that returns everything.

    Attributes:
        model: an `onnx_ir.Model` with its matches, in memory.
        save: writes such a model.
        wanted: how to build it.
        signature: with the matches.
    """

    model: Any
    save: Callable[[Any, Path], None]
    wanted: BuildRequest
    signature: Signature
    _runner: TrtRunner | None = field(default=None, repr=False, compare=False)
    _folder: TemporaryDirectory[str] | None = field(default=None, repr=False, compare=False)

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs by name, as many rows as the inputs have."""
        if self._runner is None:
            self._runner = self._build()
        return self._runner(inputs)

    def _build(self) -> TrtRunner:
        self._folder = TemporaryDirectory(prefix="exporter-trt-probe-")
        folder = Path(self._folder.name)
        self.save(self.model, folder / ONNX)
        build_files(tensorrt(), folder, self.wanted, attention=0)
        runner = TrtRunner(path=folder / ENGINE, signature=self.signature, options=self.wanted.options)
        runner.load()
        self._folder.cleanup()  # the engine is in memory now
        return runner
