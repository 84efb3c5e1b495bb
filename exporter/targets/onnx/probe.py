"""Run a model that is only in memory, to read its matches beside its outputs.

The probe is the shipped model before its matches are dropped. Its weights are handed to ONNX Runtime where they are:
writing them out a second time would cost more than the proof.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from exporter.targets.onnx.runner import session_options
from exporter.targets.target import Array

_INLINE_BYTES = 1 << 12
"""Small initializers stay in the graph, where shape inference and constant folding see them."""


@dataclass(kw_only=True)
class OnnxProbe:
    """A runner over a model without a file.

    Attributes:
        graph: the serialised model; each large initializer is declared to be in a file of its name.
        weights: the contents of those files.
        outputs: names to return, in order.
    """

    graph: bytes
    weights: Mapping[str, Array]
    outputs: tuple[str, ...]
    _session: Any = field(default=None, repr=False, compare=False)

    def __call__(self, images: Array) -> dict[str, Array]:
        """All outputs by name, for one batch of the model's own size."""
        session = self._open()
        (given,) = session.get_inputs()
        return dict(zip(self.outputs, session.run(list(self.outputs), {given.name: images}), strict=True))

    def _open(self) -> Any:
        if self._session is None:
            import onnxruntime

            options = session_options(threads=0, spinning=False)
            options.add_session_config_entry("session.disable_prepacking", "1")  # runs a few times only
            buffers = [
                np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in self.weights.values()
            ]
            options.add_external_initializers_from_files_in_memory(
                list(self.weights), buffers, [buffer.nbytes for buffer in buffers]
            )
            providers = ["CPUExecutionProvider"]
            self._session = onnxruntime.InferenceSession(self.graph, options, providers=providers)
        return self._session


def probe(model: ir.Model) -> OnnxProbe:
    """A probe over `model` as it is now; later changes to the model do not reach it."""
    kept = {name: value.const_value for name, value in model.graph.initializers.items()}
    large = {name: tensor for name, tensor in kept.items() if tensor and tensor.nbytes > _INLINE_BYTES}
    for name, tensor in large.items():
        model.graph.initializers[name].const_value = ir.ExternalTensor(
            name, 0, tensor.nbytes, tensor.dtype, shape=ir.Shape(tensor.numpy().shape), name=name
        )
    graph = ir.to_proto(model).SerializeToString()
    for name, tensor in large.items():
        model.graph.initializers[name].const_value = tensor
    outputs = tuple(str(output.name) for output in model.graph.outputs)
    return OnnxProbe(
        graph=graph, weights={name: tensor.numpy() for name, tensor in large.items()}, outputs=outputs
    )
