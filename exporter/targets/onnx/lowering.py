"""How operators are written in ONNX where the exporter of torch writes more than is needed; the forms of attention."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from onnx.defs import OpSchema
from onnxscript import opset20, opset23
from onnxscript.values import Op, Opset

from exporter.forms import Forms, Precision

op: Any = opset20
"""Untyped: the operators take values of a graph under construction, which their signatures do not know."""

_newer: Any = opset23

OPSET = 20
ATTENTION_OPSET = 23
"""The first one with an Attention operator."""


BFLOAT16_OPSET = 22
"""The first one whose convolution takes bfloat16."""


@dataclass(frozen=True, kw_only=True)
class AttentionForm:
    """One form of attention in ONNX.

    Attributes:
        translate: of the operator of torch.
        opset: of the default domain that it needs.
        of_rows: whether it takes (B, N, H * D) and splits the heads itself.
    """

    translate: Callable[..., Any]
    opset: int = 0
    of_rows: bool = False


def attention_form(forms: Forms) -> AttentionForm:
    """The form of attention that was chosen."""
    chosen = forms.function("attention")
    assert isinstance(chosen, AttentionForm)
    return chosen


def opset(forms: Forms, precision: Precision = "fp32") -> int:
    """The opset of the default domain to write, for these forms and this precision."""
    return max(BFLOAT16_OPSET if precision == "bf16" else OPSET, attention_form(forms).opset)


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
    if is_causal:
        attn_mask = _causal(query, key)
    factor = scale if scale is not None else float(query.shape[-1]) ** -0.5
    if factor != 1.0:
        query = op.Mul(query, op.CastLike(op.Constant(value_float=factor), query))
    swapped = list(range(len(key.shape)))
    swapped[-2:] = swapped[-1], swapped[-2]
    logits = op.MatMul(query, op.Transpose(key, perm=swapped))
    if attn_mask is not None:
        logits = op.Add(logits, _additive(attn_mask, query))
    return op.MatMul(op.Softmax(logits, axis=-1), value)


def attention_operator(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """The same as ONNX's own operator, for (B, H, N, D) or (B * H, N, D)."""
    rows = _rows_of_channels(query, key, value)
    mask = _full_mask(_causal(query, key) if is_causal else attn_mask, query, key)
    heads, factor = _heads_and_factor(query, scale)
    merged, *_ = _newer.Attention(*rows, mask, q_num_heads=heads, kv_num_heads=heads, scale=factor)
    return _heads_of_rows(merged, query, value)


def fused_attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """The same as ONNX Runtime's own operator, for (B, H, N, D) or (B * H, N, D)."""
    rows = _rows_of_channels(query, key, value)
    mask = _full_mask(_causal(query, key) if is_causal else attn_mask, query, key)
    heads, factor = _heads_and_factor(query, scale)
    merged = _multi_head_attention()(*rows, None, None, mask, num_heads=heads, scale=factor)
    merged.type = query.type
    merged.shape = ir.Shape([*rows[0].shape[:2], heads * value.shape[-1]])
    return _heads_of_rows(merged, query, value)


def select(tensor: Any, dim: int, index: int) -> Any:
    """One entry of an axis, which disappears."""
    return op.Gather(tensor, op.Constant(value_int=index), axis=dim)


def unbind(tensor: Any, dim: int = 0) -> Sequence[Any]:
    """Every entry of an axis."""
    return [select(tensor, dim, index) for index in range(tensor.shape[dim])]


def sort_stable(values: Any, *, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:
    """A whole axis in order; TopK puts the lower index first among equal values, by specification."""
    count = op.Constant(value_ints=[values.shape[dim]])
    return op.TopK(values, count, axis=dim, largest=int(descending), sorted=1)


def _rows_of_channels(*heads: Any) -> list[Any]:
    """(B, N, H * D) each, which is how a projection makes them: `flatten_heads` removes the movement in between."""
    if len(heads[0].shape) == 3:
        return list(heads)
    flat = op.Constant(value_ints=[0, 0, -1])
    rows = [op.Reshape(op.Transpose(each, perm=[0, 2, 1, 3]), flat) for each in heads]
    for each, row in zip(heads, rows, strict=True):
        row.shape = ir.Shape([each.shape[0], each.shape[2], each.shape[1] * each.shape[3]])
    return rows


def _heads_of_rows(rows: Any, query: Any, value: Any) -> Any:
    if len(query.shape) == 3:
        return rows
    split = op.Reshape(rows, op.Constant(value_ints=[0, 0, query.shape[1], value.shape[-1]]))
    return op.Transpose(split, perm=[0, 2, 1, 3])


def _heads_and_factor(query: Any, scale: float | None) -> tuple[int, float]:
    heads = query.shape[1] if len(query.shape) == 4 else 1
    return heads, scale if scale is not None else float(query.shape[-1]) ** -0.5


def _full_mask(mask: Any, query: Any, key: Any) -> Any:
    """Additive, of four axes, with a row for every query; None stays None.

    ONNX Runtime's CPU kernel of the standard operator takes no (B, 1, 1, N), although the specification allows it.
    """
    if mask is None:
        return None
    missing = {4: [], 3: [1], 2: [0, 1]}[len(mask.shape)]
    added = _additive(mask, query)
    if missing:
        added = op.Unsqueeze(added, op.Constant(value_ints=missing))
    return op.Expand(added, op.Constant(value_ints=[1, 1, query.shape[-2], key.shape[-2]]))


def _causal(query: Any, key: Any) -> Any:
    allowed = np.tril(np.ones((query.shape[-2], key.shape[-2]), dtype=bool))
    added = np.where(allowed, 0.0, -np.inf).astype(np.float32)
    mask = op.CastLike(op.Constant(value=ir.tensor(added)), query)
    mask.shape = ir.Shape(added.shape)
    return mask


def _additive(mask: Any, query: Any) -> Any:
    if mask.dtype != ir.DataType.BOOL:
        return mask
    zero, minus_infinity = (
        op.CastLike(op.Constant(value_float=each), query) for each in (0.0, float("-inf"))
    )
    return op.Where(mask, zero, minus_infinity)


def _multi_head_attention() -> Any:
    """ONNX Runtime's operator, of which onnx knows nothing: the part of its interface that is used here."""
    optional = OpSchema.FormalParameterOption.Optional
    inputs = [OpSchema.FormalParameter("query", "T")]
    for name in ("key", "value", "bias", "key_padding_mask", "attention_bias"):
        inputs.append(OpSchema.FormalParameter(name, "T", param_option=optional))
    schema = OpSchema(
        "MultiHeadAttention",
        "com.microsoft",
        1,
        inputs=inputs,
        outputs=[OpSchema.FormalParameter("output", "T")],
        type_constraints=[("T", ["tensor(float)", "tensor(float16)", "tensor(bfloat16)"], "floats")],
        attributes=[
            OpSchema.Attribute("num_heads", OpSchema.AttrType.INT, required=True),
            OpSchema.Attribute("scale", OpSchema.AttrType.FLOAT, required=False),
        ],
    )
    return Op(Opset("com.microsoft", 1), "MultiHeadAttention", schema)


_COMMON: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten.select.int: select,
    torch.ops.aten.unbind.int: unbind,
    torch.ops.aten.sort.stable: sort_stable,
}


DECOMPOSED = AttentionForm(translate=attention)
OPERATOR = AttentionForm(translate=attention_operator, opset=ATTENTION_OPSET, of_rows=True)
FUSED = AttentionForm(translate=fused_attention, of_rows=True)


def translations(forms: Forms) -> dict[Callable[..., Any], Callable[..., Any]]:
    """How operators of torch are translated, where not as the exporter of torch does."""
    attends = torch.ops.aten.scaled_dot_product_attention.default
    return {**_COMMON, attends: attention_form(forms).translate}
