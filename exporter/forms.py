"""The forms that one program can take: the same numbers, spelled as an engine likes them best.

What has several forms is an operation, and each of its forms is one function, listed in `FUNCTIONS`. A target names
the forms that were measured to be fastest there; a user may name others. Knows no torch: a function is loaded when it
is asked for.
"""

import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

Precision = Literal["fp32", "fp16", "bf16", "int8", "fp8"]
"""What an engine computes in. `int8` is a program in fp32 whose products with weights a target quantises; `fp8` one in
fp16 whose products with the weights of blocks have operands in e4m3."""

CALIBRATED: tuple[Precision, ...] = ("int8", "fp8")
"""Precisions whose activations have scales, which are taken from images."""

Operation = Literal["mask", "selection", "attention", "ranking", "product"]
"""What has several forms, each of them a function; a field of `Forms` each."""

FUNCTIONS: Mapping[Operation, Mapping[str, str]] = {
    # Proportional attention: f(queries, keys, values, sizes, *, prefix_change, absent, **options) -> attended.
    "mask": {
        "bias": "exporter.reduction.sizes:attend_with_bias",
        "expanded": "exporter.reduction.sizes:attend_with_expanded_bias",
        "folded": "exporter.reduction.sizes:attend_with_folded_bias",
        "kernel": "exporter.kernels.attention:attend_with_kernel",
    },
    # The size-weighted mean: f(tokens, sizes, match, *, absent) -> tokens, sizes.
    "selection": {
        "gather": "exporter.reduction.merge:merge_by_lookup",
        "one-hot": "exporter.reduction.merge:merge_by_product",
        "kernel": "exporter.kernels.residual:merge_by_kernel",
    },
    # Attention in ONNX: an `AttentionForm`.
    "attention": {
        "decomposed": "exporter.targets.onnx.lowering:DECOMPOSED",
        "op": "exporter.targets.onnx.lowering:OPERATOR",
        "fused": "exporter.targets.onnx.lowering:FUSED",
    },
    # A stable sort: f(values, *, stable, dim, descending) -> values, indices.
    "ranking": {
        "sort": "torch:ops.aten.sort.stable",
        "count": "exporter.rewrite.decompose_stable_sort:sort_by_comparison",
    },
    # A linear layer in fp8: f(rows, weight, row scale, weight scale, bias) -> fp16.
    "product": {
        "emulated": "exporter.graph.fp8:emulated_linear_fp8",
        "scaled": "exporter.graph.fp8:linear_fp8",
    },
}
"""By operation and form: where its function is, and what every form of the operation is called with. Forms differ in
how they compute and never in what."""


def program_precision(precision: Precision) -> Precision:
    """What the program computes in that an engine of this precision is made of."""
    return "fp32" if precision == "int8" else precision


@dataclass(frozen=True, kw_only=True)
class Forms:
    """How the rewritten program spells what has several spellings.

    Attributes:
        merge: the whole reduction as operators of the engine (`operators`), or, on CUDA, as fused kernels (`kernels`):
            a matching kernel for the methods that have one, `mask=kernel`, `selection=kernel`, and every residual sum
            in one kernel with the LayerNorm after it.
        mask: proportional attention's log(size): added to the logits as (B, 1, 1, N) (`bias`) or, repeated for every
            query, as (B, 1, M, N) (`expanded`); one more channel of queries and keys, with no mask (`folded`); or added
            inside a kernel of this package (`kernel`).
        selection: how the tokens that stay are picked: a lookup of rows (`gather`), a product with a one-hot matrix
            (`one-hot`), or a kernel of this package (`kernel`).
        attention: product, softmax, product (`decomposed`); ONNX's own Attention operator (`op`); or the engine's fused
            operator, outside of the standard ones (`fused`).
        ranking: who merges: one stable sort (`sort`), or, for engines that do not keep the order of ties, ranks counted
            by comparing all pairs (`count`).
        metric: the mean key that tokens are compared by: a mean over heads (`mean`), or further columns of the product
            that gives the keys (`columns`); the same in exact arithmetic, since the mean is linear.
        stem: patches are embedded by a convolution, as models have it (`convolution`), or by cutting them out and one
            product of matrices (`product`).
        gelu: as the model has it (`model`), or its approximation by tanh (`tanh`), which a GPU computes within the
            product before it. The approximation changes the numbers, by up to 5e-4.
        product: a linear layer in fp8, by a GPU's instruction (`scaled`) or as a product in fp32 of the same numbers
            (`emulated`), which shows what fp8 costs in accuracy on any machine.
        normalization: in a program of 16 bits, LayerNorm and softmax between casts to fp32 and back (`fp32`); or on 16
            bits in and out (`narrow`), for engines that compute in fp32 inside. The residual stream has 16 bits in
            both.
    """

    merge: Literal["operators", "kernels"] = "operators"
    mask: Literal["bias", "expanded", "folded", "kernel"] = "bias"
    selection: Literal["gather", "one-hot", "kernel"] = "gather"
    attention: Literal["decomposed", "op", "fused"] = "decomposed"
    ranking: Literal["count", "sort"] = "sort"
    metric: Literal["mean", "columns"] = "mean"
    stem: Literal["convolution", "product"] = "convolution"
    gelu: Literal["model", "tanh"] = "model"
    product: Literal["emulated", "scaled"] = "emulated"
    normalization: Literal["fp32", "narrow"] = "fp32"

    def choose(self, forms: Mapping[str, Any]) -> Self:
        """The same with some forms replaced, by name."""
        return replace(self, **forms)

    @property
    def has_kernels(self) -> bool:
        """Whether a program in this form calls kernels of this package."""
        return self.merge == "kernels" or "kernel" in (self.mask, self.selection)

    def function(self, operation: Operation) -> Any:
        """What `FUNCTIONS` names for the chosen form of an operation."""
        forms = FUNCTIONS[operation]
        fused = self.merge == "kernels" and "kernel" in forms
        return pkgutil.resolve_name(forms["kernel" if fused else getattr(self, operation)])
