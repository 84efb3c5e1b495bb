"""What an engine of the stand-in holds, the ONNX model, and the memory that its tensors are bound to."""

import ctypes
from typing import Any

import numpy as np
import onnx

Buffer = bytes | bytearray | memoryview
Dims = tuple[int, ...]

ADDRESS_BYTES = {"float32": 4, "float16": 2, "int64": 8, "int32": 4, "uint8": 1, "bool": 1}
ELEMENT_TYPES = {"float32": "FLOAT", "float16": "HALF", "int64": "INT64", "uint8": "UINT8"}
"""Members of `DataType`."""


def array_at(address: int, shape: Dims, dtype: str) -> Any:
    """The array in memory that another one owns."""
    size = int(np.prod(shape)) * ADDRESS_BYTES[dtype]
    memory = (ctypes.c_byte * size).from_address(address)
    return np.frombuffer(memoryview(memory), dtype=np.dtype(dtype)).reshape(shape)


def tensors(model: bytes, kind: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Inputs or outputs of a serialised ONNX model: dtype name and shape by name, -1 for a free axis."""
    if model not in _READ:
        graph = onnx.load_from_string(model).graph
        _READ[model] = {"input": _values(graph.input), "output": _values(graph.output)}
    return _READ[model][kind]


_READ: dict[bytes, dict[str, dict[str, tuple[str, tuple[int, ...]]]]] = {}


def _values(values: Any) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {
        value.name: (
            onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name,
            tuple(axis.dim_value or -1 for axis in value.type.tensor_type.shape.dim),
        )
        for value in values
    }
