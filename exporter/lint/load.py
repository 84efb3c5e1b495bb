"""From an ONNX file, or a model in memory, to `GraphFacts`: without weights, with every shape that can be inferred.

Weights are left out before shapes are inferred: that keeps it fast, and below protobuf's 2 GiB.
"""

from pathlib import Path

import onnx
from onnx import TensorProto, inliner, shape_inference

from exporter.errors import BundleError, UsageError
from exporter.lint.graph_facts import GraphFacts, facts_of

_SMALL_ELEMENTS = 4096
"""Tensors up to this size keep their data: shapes, axes, counts, scales."""


def load_facts(model: onnx.ModelProto | Path) -> GraphFacts:
    """Read and infer.

    Args:
        model: left as it is.

    Raises:
        UsageError: there is no such file.
        BundleError: it cannot be read, or is not an ONNX model.
    """
    name, loaded = (model.name, _read(model)) if isinstance(model, Path) else ("model", model)
    if not loaded.opset_import or not loaded.HasField("graph"):
        raise BundleError(
            f"{name}: expected an ONNX model, got a file without graph or opset: export it again"
        )
    slim = _without_weights(loaded)
    try:
        if slim.functions:
            slim = inliner.inline_local_functions(slim)
        slim = shape_inference.infer_shapes(slim, data_prop=True)
    except Exception as error:  # onnx raises its own, RuntimeError and ValueError alike
        raise BundleError(
            f"{name}: expected a consistent ONNX graph, got: {error}: export it again"
        ) from error
    return facts_of(slim)


def _read(path: Path) -> onnx.ModelProto:
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing there"
        raise UsageError(f"{path}: expected an ONNX file, got {found}: name a file such as BUNDLE/model.onnx")
    try:
        return onnx.load(path, format="protobuf", load_external_data=False)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # protobuf's own
        raise BundleError(
            f"{path}: expected an ONNX model, got a file that does not parse: export it again, or fetch it again"
        ) from error


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    graph = model.graph
    slim = onnx.ModelProto(
        ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions
    )
    slim.graph.name = graph.name
    slim.graph.node.extend(graph.node)
    slim.graph.input.extend(graph.input)
    slim.graph.output.extend(graph.output)
    slim.graph.value_info.extend(graph.value_info)
    slim.graph.sparse_initializer.extend(graph.sparse_initializer)
    slim.graph.initializer.extend(_slim(tensor) for tensor in graph.initializer)
    return slim


def _slim(tensor: TensorProto) -> TensorProto:
    elements = 1
    for size in tensor.dims:
        elements *= size
    if elements <= _SMALL_ELEMENTS and tensor.data_location != TensorProto.EXTERNAL:
        return tensor
    return TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
