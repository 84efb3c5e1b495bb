"""Run a model that is only in memory, to read its matches beside its outputs.

The probe is the shipped model before its matches are dropped, on the same provider. Its weights are handed to ONNX
Runtime where they are: writing them out a second time would cost more than the check.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

from exporter.signature import Array
from exporter.targets.onnx.options import OnnxOptions
from exporter.targets.onnx.providers import open_session
from exporter.targets.onnx.session import ModelInMemory, in_memory, session_settings
from exporter.targets.onnx.widen_bfloat16 import holds_bfloat16, widen_bfloat16


@dataclass(kw_only=True)
class OnnxProbe:
    """A runner over a model without a file.

    Attributes:
        model: with its weights.
        outputs: names to return, in order.
        options: the provider.
        static: whether the batch is fixed.
    """

    model: ModelInMemory
    outputs: tuple[str, ...]
    options: OnnxOptions
    static: bool
    _session: Any = field(default=None, repr=False, compare=False)

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs by name, for one batch of the model's own size."""
        return dict(zip(self.outputs, self._open().run(list(self.outputs), dict(inputs)), strict=True))

    def _open(self) -> Any:
        if self._session is None:
            settings = session_settings(threads=0, spinning=False)
            settings.add_session_config_entry("session.disable_prepacking", "1")  # runs a few times only
            self.model.attach_weights(settings)
            self._session = open_session(self.model.graph, settings, self.options, static=self.static)
        return self._session


def probe(model: ir.Model, options: OnnxOptions) -> OnnxProbe:
    """A probe over `model` as it is now; later changes to the model do not reach it.

    Args:
        model: whose outputs are wanted, all of them.
        options: name the provider.
    """
    outputs = tuple(str(output.name) for output in model.graph.outputs)
    batch = model.graph.inputs[0].shape
    if options.provider == "cpu" and holds_bfloat16(model):
        model = model.clone()
        widen_bfloat16(model)
    return OnnxProbe(
        model=in_memory(model),
        outputs=outputs,
        options=options,
        static=batch is not None and isinstance(batch[0], int),
    )
