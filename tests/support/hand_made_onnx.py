"""Small ONNX models, written node by node."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import NodeProto, TensorProto, helper
from torch import Tensor

from exporter.signature import Signature, TensorSpec

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


def write_doubling(path: Path, batch: int | str) -> Signature:
    """Write `doubled` = 2 x + w with w = 0, and `centred` = each row less the mean of its batch; x is (batch, 2)."""
    axes, zeros = (
        helper.make_tensor("axes", TensorProto.INT64, [1], [0]),
        helper.make_tensor("w", TensorProto.FLOAT, [2], [0.0, 0.0]),
    )
    nodes = [
        node("Add", "images images", "twice"),
        node("Add", "twice w", "doubled"),
        node("ReduceMean", "images axes", "mean", keepdims=1),
        node("Sub", "images mean", "centred"),
    ]
    given, *made = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, 2])
        for name in ("images", "doubled", "centred")
    )
    graph = helper.make_graph(nodes, "by_hand", [given], made, [axes, zeros])
    opset = helper.make_opsetid("", 20)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=10), str(path))
    first, *others = (
        TensorSpec(name=name, dtype="float32", shape=(batch, 2)) for name in ("images", "doubled", "centred")
    )
    return Signature(inputs=(first,), outputs=tuple(others))


def node(kind: str, given: str, made: str, name: str = "", **attributes: Any) -> NodeProto:
    """Make a node; inputs are separated by spaces."""
    return helper.make_node(kind, given.split(), [made], name=name or made, **attributes)
