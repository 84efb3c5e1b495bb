"""How operators are spelled in ONNX where the exporter's own spelling is longer than it needs to be.

The one place where this target chooses its forms. All of them are standard operators of the default domain.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnxscript import opset20

op: Any = opset20
"""Untyped: the operators take values of a graph under construction, which their signatures do not know."""

OPSET = 20


def attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """softmax(q k^T * scale + mask) v for any number of leading axes.

    The scale is applied to q before the product, where it costs least and where fused kernels expect it, and not at
    all when a pass has folded it into the projection.
    """
    factor = scale if scale is not None else float(query.shape[-1]) ** -0.5
    if factor != 1.0:
        query = op.Mul(query, op.CastLike(op.Constant(value_float=factor), query))
    swapped = list(range(len(key.shape)))
    swapped[-2:] = swapped[-1], swapped[-2]
    logits = op.MatMul(query, op.Transpose(key, perm=swapped))
    if is_causal:
        attn_mask = _constant(np.tril(np.ones((query.shape[-2], key.shape[-2]), dtype=bool)))
    if attn_mask is not None:
        logits = op.Add(logits, _additive(attn_mask, query))
    return op.MatMul(op.Softmax(logits, axis=-1), value)


def select(tensor: Any, dim: int, index: int) -> Any:
    """One entry of an axis, which disappears."""
    return op.Gather(tensor, op.Constant(value_int=index), axis=dim)


def unbind(tensor: Any, dim: int = 0) -> Sequence[Any]:
    """Every entry of an axis."""
    return [select(tensor, dim, index) for index in range(tensor.shape[dim])]


def _additive(mask: Any, query: Any) -> Any:
    if mask.dtype != ir.DataType.BOOL:
        return mask
    zero, minus_infinity = (
        op.CastLike(op.Constant(value_float=each), query) for each in (0.0, float("-inf"))
    )
    return op.Where(mask, zero, minus_infinity)


def _constant(array: np.ndarray[Any, Any]) -> Any:
    return op.Constant(value=ir.tensor(array))


LOWERINGS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten.scaled_dot_product_attention.default: attention,
    torch.ops.aten.select.int: select,
    torch.ops.aten.unbind.int: unbind,
}
