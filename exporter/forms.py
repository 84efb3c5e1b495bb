"""The forms that one program can take: the same numbers, spelled as an engine likes them best.

A target names the form that was measured to be fastest there; a user may name another. Knows no torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

Precision = Literal["fp32", "fp16", "bf16", "int8"]
"""What an engine computes in. `int8` is a program in fp32 whose products with weights are quantised."""


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
