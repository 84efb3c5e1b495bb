"""Products in 8 bits: by a GPU's own instructions, or emulated.

e4m3 has 4 bits of exponent and 3 of mantissa; its largest number is 448. Source: Micikevicius et al., FP8 Formats for
Deep Learning, 2022.
"""

import torch
from torch import Tensor
from torch.nn import functional

FP8 = torch.float8_e4m3fn
LARGEST = 448.0
GRANULE = 16
"""Rows and columns of a weight in e4m3 come in multiples of this number."""


def quantize_fp8(values: Tensor, scale: float) -> Tensor:
    """Values in e4m3, in units of `scale`; what is too large becomes the largest number."""
    return (values.float() / scale).clamp(-LARGEST, LARGEST).to(FP8)


def linear_fp8(
    rows: Tensor, weight_OI: Tensor, row_scale: Tensor, weight_scale: Tensor, bias_O: Tensor | None
) -> Tensor:
    """A linear layer with a weight in e4m3, by an instruction that scales; sums in fp32, the result in fp16.

    Args:
        rows: e4m3 (..., I).
        weight_OI: e4m3; O and I are multiples of `GRANULE`.
        row_scale: fp32, unit of the rows, one number.
        weight_scale: fp32, unit of the weight, one number.
        bias_O: fp16.
    """
    product = torch.ops.aten._scaled_mm.default(
        rows.reshape(-1, rows.shape[-1]),
        weight_OI.t(),
        row_scale,
        weight_scale,
        bias_O,
        None,
        torch.float16,
        True,
    )
    result: Tensor = product.reshape(*rows.shape[:-1], weight_OI.shape[0])
    return result


def emulated_linear_fp8(
    rows: Tensor, weight_OI: Tensor, row_scale: Tensor, weight_scale: Tensor, bias_O: Tensor | None
) -> Tensor:
    """`linear_fp8` as a product in fp32 of the same numbers."""
    bias = None if bias_O is None else bias_O.float()
    return functional.linear(rows.float() * row_scale, weight_OI.float() * weight_scale, bias).half()
