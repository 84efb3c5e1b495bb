"""What the operators of a captured graph are: one table of traits, which every pass and analysis asks.

An operator that a library uses and no row names is added here, once.
"""

from enum import Flag, auto
from functools import cache
from typing import Any

import torch
from torch import fx

aten = torch.ops.aten
sdpa = aten.scaled_dot_product_attention.default


class Trait(Flag):
    """What an operator does, as far as passes care."""

    COPY = auto()
    """Gives its operand's values in other memory."""
    DROPOUT = auto()
    """Gives its operand's values, in evaluation mode."""
    CAST = auto()
    """Gives its operand's values in another type or on another device."""
    RESHAPE = auto()
    """Groups its operand's axes otherwise, in row-major order."""
    MOVEMENT = auto()
    """Selects, permutes or splits its operand's entries and computes nothing."""
    CONVOLUTION = auto()
    """A weighted sum over a window; where patches come from."""
    LINEAR = auto()
    """A product with a weight, plus a bias."""
    MATMUL = auto()
    """A product of two matrices."""
    ATTENTION = auto()
    """Attention as one node."""
    NORMALIZATION = auto()
    """Divides by a spread that spans more than 16 bits hold; what it gives back does not."""
    WIDE_INSIDE = auto()
    """Takes and gives 16 bits and computes in fp32 in between, in the kernels of PyTorch and ONNX Runtime."""
    REDUCTION = auto()
    """Makes one entry of all those on some axes."""
    WIDE_RANGE = auto()
    """Squares, sums and their inverses: they leave the range of fp16 (65504) or the 8 bits of bf16."""


PRODUCT = Trait.CONVOLUTION | Trait.LINEAR | Trait.MATMUL | Trait.ATTENTION
"""Multiply-accumulates."""

_ROWS: tuple[tuple[Trait, tuple[Any, ...]], ...] = (
    (
        Trait.COPY,
        (aten.alias.default, aten.detach.default, aten.clone.default, aten.contiguous.default,
         aten.lift_fresh_copy.default),
    ),
    (Trait.DROPOUT, (aten.dropout.default,)),
    (
        Trait.CAST,
        (aten.to.dtype, aten.to.dtype_layout, aten.to.device, aten.to.other, aten._to_copy.default),
    ),
    (Trait.RESHAPE, (aten.reshape.default, aten.flatten.using_ints, aten.unflatten.int)),
    (
        Trait.MOVEMENT,
        (aten.permute.default, aten.transpose.int, aten.unbind.int, aten.select.int, aten.slice.Tensor,
         aten.split.Tensor, aten.chunk.default, aten.split_with_sizes.default, aten.squeeze.dim,
         aten.unsqueeze.default),
    ),
    (Trait.CONVOLUTION, (aten.conv2d.default, aten.conv2d.padding, aten.convolution.default)),
    (Trait.LINEAR, (aten.linear.default, aten.addmm.default, aten._addmm_activation.default)),
    (Trait.MATMUL, (aten.matmul.default, aten.mm.default, aten.bmm.default, aten._scaled_mm.default)),
    (Trait.ATTENTION, (sdpa,)),
    (
        Trait.NORMALIZATION | Trait.WIDE_INSIDE,
        (aten.layer_norm.default, aten.rms_norm.default, aten.group_norm.default, aten.softmax.int,
         aten.log_softmax.int),
    ),
    (Trait.NORMALIZATION, (aten.batch_norm.default, aten._native_batch_norm_legit_no_training.default)),
    (
        Trait.REDUCTION | Trait.WIDE_RANGE,
        (aten.mean.dim, aten.sum.dim_IntList, aten.linalg_vector_norm.default),
    ),
    (Trait.REDUCTION, (aten.amax.default, aten.amin.default)),
    (
        Trait.WIDE_RANGE,
        (aten.var.correction, aten.pow.Tensor_Scalar, aten.square.default, aten.exp.default, aten.log.default,
         aten.sqrt.default, aten.rsqrt.default, aten.reciprocal.default),
    ),
)  # fmt: skip

TRAITS: dict[Any, Trait] = {operator: traits for traits, operators in _ROWS for operator in operators}

_POINTWISE_UNTAGGED = frozenset({aten.hardswish.default})
"""Elementwise, and PyTorch does not say so (2.14)."""


@cache
def operators(traits: Trait) -> frozenset[Any]:
    """Every operator that has one of these traits."""
    return frozenset(operator for operator, own in TRAITS.items() if own & traits)


def has(node: fx.Node, traits: Trait) -> bool:
    """Whether a node's operator has one of these traits."""
    return bool(TRAITS.get(node.target, Trait(0)) & traits)


def is_pointwise(node: fx.Node) -> bool:
    """Whether each entry of the result depends on the entries of the operands at its own place, with broadcasting."""
    tags = getattr(node.target, "tags", ())
    return torch.Tag.pointwise in tags or node.target in _POINTWISE_UNTAGGED
