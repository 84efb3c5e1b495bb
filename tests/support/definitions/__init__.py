"""What each method does to the tokens of one image: its definition, in the plainest way. One module per method.

A module `<method>.py` here defines `reduce(entering: Entering) -> Leaving` with loops over tokens, in float64; it
shares nothing with the package under test. The eager reference finds it by the method's name.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from tests.support.matching import Matching, cosine, merge


@dataclass(frozen=True, kw_only=True)
class Entering:
    """The tokens of one image where a block reduces them, and what is known of them. N tokens, H heads, D channels.

    Attributes:
        tokens_NC: that the block reduces.
        sizes_N: how many original tokens each one stands for.
        keys_HND: of the block's attention.
        values_HND: of the block's attention.
        row_N: the class token's attention to every token, mean over heads.
        removed: how many tokens leave.
        dropped: how many of them are dropped.
        prefix: how many leading tokens are protected.
        block: index of the block.
        blocks: of the model.
        first: tokens that enter the first block, where the method asks for them.
        slots: tokens that may stay by the schedule, where the method asks for them.
        options: of the method; those that are left out have the method's own default.
    """

    tokens_NC: Tensor
    sizes_N: Tensor
    keys_HND: Tensor
    values_HND: Tensor
    row_N: Tensor
    removed: int
    dropped: int
    prefix: int
    block: int
    blocks: int
    first: int = 0
    slots: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Leaving:
    """The tokens of one image after a reduction, their sizes, and the decision."""

    tokens_KC: Tensor
    sizes_K: Tensor
    matching: Matching


def definition(method: str) -> Callable[[Entering], Leaving]:
    """The definition of a method."""
    reduce: Callable[[Entering], Leaving] = importlib.import_module(f"{__name__}.{method}").reduce
    return reduce


def similarity(entering: Entering) -> list[list[float]]:
    """Cosines of all tokens: of the keys, averaged over heads, or of the tokens with `metric=tokens`."""
    by_tokens = entering.options.get("metric") == "tokens"
    return cosine(entering.tokens_NC if by_tokens else entering.keys_HND.mean(dim=0))


def weighed(entering: Entering, matching: Matching) -> Leaving:
    """The size-weighted mean of every group of a matching."""
    tokens_KC, sizes_K = merge(entering.tokens_NC, entering.sizes_N, matching.groups)
    return Leaving(tokens_KC=tokens_KC, sizes_K=sizes_K, matching=matching)
