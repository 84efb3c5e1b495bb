"""Write ONNX models that have weights in common, such as a text encoder for several lengths, over one file of weights.

ONNX Runtime reads weights from the folder of a model and from folders in it, nowhere else, and neither ONNX nor ONNX IR
takes a file that has several names. So the first model is written into the innermost folder, with its weights beside
it, and the others lie in the folders around it.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import onnx_ir as ir

from exporter.targets.onnx.save import save, save_apart

_LEAST_BYTES = 1 << 8
"""Smaller tensors stay in the model."""


def save_sharing(model: ir.Model, path: Path, folder: Path) -> None:
    """Write a model; its weights go into a file of the folder, or are those that another model has put there.

    Args:
        model: what to write; tensors that the folder has become references to it.
        path: of the model, a file.
        folder: of the shared weights: the model's own, for the first model; otherwise one inside of it, with a model of
            the same file name. Where there is none, nothing is shared.
    """
    if folder == path.parent:
        save_apart(model, path)
        return
    first = folder / path.name
    stored = {_key(each): each for each in _weights(ir.load(first))} if first.exists() else {}
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is None or tensor.nbytes < _LEAST_BYTES:
            continue
        found = stored.get(_key(tensor))
        if isinstance(found, ir.ExternalTensor):
            value.const_value = ir.ExternalTensor(
                (folder / found.location).relative_to(path.parent),
                found.offset,
                found.length,
                tensor.dtype,
                shape=ir.Shape(tensor.shape.numpy()),
                name=value.name or "",
                base_dir=path.parent,
            )
    save(model, path)


def _weights(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    for value in model.graph.initializers.values():
        if isinstance(value.const_value, ir.ExternalTensor):
            yield value.const_value


def _key(tensor: ir.TensorProtocol) -> tuple[object, ...]:
    """Equal for tensors of equal type and content."""
    return tensor.dtype, tensor.shape.numpy(), hashlib.sha256(tensor.tobytes()).digest()
