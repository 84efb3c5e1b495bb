"""Open an ONNX model with ONNX Runtime, from a file or from memory."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from exporter.errors import BundleError
from exporter.signature import Array
from exporter.targets.onnx.options import OnnxOptions
from exporter.targets.onnx.providers import Stream, open_session

if TYPE_CHECKING:
    import onnx_ir as ir

_INLINE_BYTES = 1 << 12
"""Small initializers stay in the graph, where shape inference and constant folding see them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelInMemory:
    """A model without a file, whose weights ONNX Runtime reads where they are.

    Attributes:
        graph: the serialised model; each large initializer is declared to be in a file of its name.
        weights: the contents of those files, each in one piece.
    """

    graph: bytes
    weights: Mapping[str, Array]

    def attach_weights(self, settings: Any) -> None:
        """Tell ONNX Runtime's session options where the weights are; they have to stay until a session is open."""
        buffers = [array.reshape(-1).view(np.uint8) for array in self.weights.values()]
        settings.add_external_initializers_from_files_in_memory(
            list(self.weights), buffers, [buffer.nbytes for buffer in buffers]
        )


def in_memory(model: "ir.Model") -> ModelInMemory:
    """`model` as it is now; later changes to it do not reach the result."""
    import onnx_ir as ir

    kept = {name: value.const_value for name, value in model.graph.initializers.items()}
    large = {
        name: tensor
        for name, tensor in kept.items()
        if tensor and (tensor.nbytes > _INLINE_BYTES or isinstance(tensor, ir.ExternalTensor))
    }
    for name, tensor in large.items():
        model.graph.initializers[name].const_value = ir.ExternalTensor(
            name, 0, tensor.nbytes, tensor.dtype, shape=ir.Shape(tensor.numpy().shape), name=name
        )
    graph = ir.to_proto(model).SerializeToString()
    for name, tensor in large.items():
        model.graph.initializers[name].const_value = tensor
    weights = {name: np.ascontiguousarray(tensor.numpy()) for name, tensor in large.items()}
    return ModelInMemory(graph=graph, weights=weights)


def session_settings(*, threads: int, spinning: bool) -> Any:
    """ONNX Runtime's session options; see `OnnxRunner` for the arguments."""
    import onnxruntime

    onnxruntime.disable_telemetry_events()  # where someone else imported it before this package could say so
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.log_severity_level = 3
    settings.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
    return settings


def open_file(
    path: Path, settings: Any, options: OnnxOptions, *, static: bool, stream: Stream | None = None
) -> Any:
    """A session over a file; a model in bfloat16 is widened where the CPU has no kernels for it.

    Args:
        path: of the model.
        settings: of `session_settings`.
        options: name the provider.
        static: whether the batch is fixed.
        stream: to work on; None for one of the session's own.

    Raises:
        TargetUnavailableError: the provider cannot run the model here.
        BundleError: ONNX Runtime cannot load the model.
    """
    try:
        return open_session(path, settings, options, static=static, stream=stream)
    except BundleError as error:
        if options.provider != "cpu" or not _has_no_kernel(error):
            raise
        widened = _widened(path)
        if widened is None:
            raise
    widened.attach_weights(settings)
    return open_session(widened.graph, settings, options, static=static)


def _has_no_kernel(error: BundleError) -> bool:
    from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoKernel

    return isinstance(error.__cause__, NoKernel)


def _widened(path: Path) -> ModelInMemory | None:
    import onnx_ir as ir

    from exporter.targets.onnx.widen_bfloat16 import holds_bfloat16, widen_bfloat16

    model = ir.load(path)
    if not holds_bfloat16(model):
        return None
    widen_bfloat16(model)
    return in_memory(model)
