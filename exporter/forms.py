"""The forms that one program can take: the same numbers, spelled as an engine likes them best.

What has several forms is an operation, and each of its forms is one function, listed in `FUNCTIONS`. A target names
the forms that were measured to be fastest there; a user may name others. Knows no torch: a function is loaded when it
is asked for.
"""

import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

Precision = Literal["fp32", "fp16", "bf16", "int8"]
"""What an engine computes in. `int8` is a program in fp32 whose products with weights are quantised."""

Operation = Literal["mask", "selection", "attention", "ranking"]
"""What has several forms; a field of `Forms` each."""

FUNCTIONS: Mapping[Operation, Mapping[str, str]] = {
    # Proportional attention: f(queries, keys, values, sizes, *, prefix_change, absent, **options) -> attended.
    "mask": {
        "bias": "exporter.reduction.sizes:attend_with_bias",
        "expanded": "exporter.reduction.sizes:attend_with_expanded_bias",
        "folded": "exporter.reduction.sizes:attend_with_folded_bias",
    },
    # The size-weighted mean: f(tokens, sizes, match, *, absent) -> tokens, sizes.
    "selection": {
        "gather": "exporter.reduction.merge:merge_by_lookup",
        "one-hot": "exporter.reduction.merge:merge_by_product",
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
        mask: proportional attention's log(size): added to the logits as (B, 1, 1, N) (`bias`) or, repeated for every
            query, as (B, 1, M, N) (`expanded`); or one more channel of queries and keys, with no mask (`folded`).
        selection: how the tokens that stay are picked: a lookup of rows (`gather`) or a product with a one-hot
            matrix (`one-hot`).
        attention: product, softmax, product (`decomposed`); ONNX's own Attention operator (`op`); or the engine's fused
            operator, outside of the standard ones (`fused`).
        ranking: who merges: one stable sort (`sort`), or, for engines that do not keep the order of ties, ranks counted
            by comparing all pairs (`count`).
    """

    mask: Literal["bias", "expanded", "folded"] = "bias"
    selection: Literal["gather", "one-hot"] = "gather"
    attention: Literal["decomposed", "op", "fused"] = "decomposed"
    ranking: Literal["count", "sort"] = "sort"

    def choose(self, forms: Mapping[str, Any]) -> Self:
        """The same with some forms replaced, by name."""
        return replace(self, **forms)

    def function(self, operation: Operation) -> Any:
        """What `FUNCTIONS` names for the chosen form of an operation."""
        return pkgutil.resolve_name(FUNCTIONS[operation][getattr(self, operation)])
