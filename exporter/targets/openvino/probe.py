"""Run a model that is only in memory, to read its matches beside its outputs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from exporter.signature import Array
from exporter.targets.openvino.engine import compile_model
from exporter.targets.openvino.library import shared_core
from exporter.targets.openvino.options import OpenVinoOptions


@dataclass(kw_only=True)
class OpenVinoProbe:
    """A runner over a model without a file.

    Attributes:
        model: of OpenVINO: the shipped one before its matches were dropped.
        options: as of the runner.
    """

    model: Any
    options: OpenVinoOptions
    _compiled: Any = field(default=None, repr=False, compare=False)

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs by name, for one batch of the model's own size."""
        if self._compiled is None:
            core = shared_core()
            self._compiled = compile_model(core, self.model, self.options, threads=self.options.threads)
        answer = self._compiled(dict(inputs))
        return {output.get_any_name(): answer[output] for output in self._compiled.outputs}
