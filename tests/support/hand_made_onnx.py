"""Small ONNX models, written node by node."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import NodeProto, TensorProto, helper
from torch import Tensor

_TYPES = {
    torch.float32: TensorProto.FLOAT,
    torch.bfloat16: TensorProto.BFLOAT16,
    torch.int64: TensorProto.INT64,
}


def one_in_one_out(
    nodes: Sequence[NodeProto],
    shapes: Mapping[str, Sequence[int | str]],
    weights: Mapping[str, Tensor],
    opset: int = 20,
) -> onnx.ModelProto:
    """Make a checked model; `shapes` holds the fp32 input and output."""
    given, made = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()
    )
    stored = [
        helper.make_tensor(
            name,
            _TYPES[weight.dtype],
            weight.shape,
            weight.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes(),
            raw=True,
        )
        for name, weight in weights.items()
    ]
    graph = helper.make_graph(list(nodes), "by_hand", [given], [made], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    onnx.checker.check_model(model, full_check=True)
    return model


def write_product(path: Path, batch: int | str = 2) -> Path:
    """Write y = x [[1, 2], [3, 4]] for x of (batch, 2)."""
    weight = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    product = helper.make_node("MatMul", ["x", "w"], ["y"])
    onnx.save(one_in_one_out([product], {"x": [batch, 2], "y": [batch, 2]}, {"w": weight}), str(path))
    return path


def node(kind: str, given: str, made: str, name: str = "", **attributes: Any) -> NodeProto:
    """Make a node; inputs are separated by spaces."""
    return helper.make_node(kind, given.split(), [made], name=name or made, **attributes)
