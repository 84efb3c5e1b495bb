"""What token merging carries from block to block: the size of every token, and the merges done so far."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tests.support.definitions import Entering, definition
from tests.support.matching import Matching, cosine

COMPARED: Mapping[str, Mapping[str, Any]] = {"pitome": {"bipartite": "none"}}
"""Options of comparisons by a method's name. Where PiToMe deals every patch, energies nearly tie in most small images;
`tests/parity/test_methods.py` compares its other forms."""


@dataclass(frozen=True, kw_only=True)
class Reduction:
    """What is asked of every block.

    Attributes:
        removed: tokens that leave each block.
        method: how they are chosen and combined.
        dropped: how many of them are dropped in each block; empty for none.
        options: of the method; those that are left out have the method's own default.
        proportional: whether attention adds log(size).
    """

    removed: Sequence[int]
    method: str
    dropped: Sequence[int] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    proportional: bool = True


class MergeState:
    """The sizes of the tokens on their way through the blocks, and the merges done so far."""

    def __init__(self, *, asked: Reduction, prefix: int) -> None:
        self.asked = asked
        self.prefix = prefix
        self.size_BN: Tensor | None = None
        self.tokens: list[int] = []
        self.matchings: list[list[Matching]] = []
        self.similarities: list[list[float]] = []

    def begin(self, x_BNC: Tensor) -> None:
        """Note the tokens that enter the first block, each of size 1."""
        if self.size_BN is None:
            self.size_BN = x_BNC.new_ones(x_BNC.shape[:2])
            self.tokens.append(x_BNC.shape[1])

    def key_bias(self, tokens: int) -> Tensor:
        """Return log(size) of the last `tokens` tokens, (B, 1, 1, tokens); zeros where size is ignored."""
        assert self.size_BN is not None
        size_BN = self.size_BN[:, -tokens:]
        bias_BN = size_BN.log() if self.asked.proportional else torch.zeros_like(size_BN)
        return bias_BN[:, None, None, :]

    def mean(self, x_BNC: Tensor) -> Tensor:
        """Return the mean over the tokens in `x_BNC`, which are the last ones, weighted by size: (B, C)."""
        assert self.size_BN is not None
        size_BN1 = self.size_BN[:, -x_BNC.shape[1] :, None]
        return (x_BNC * size_BN1).sum(dim=1) / size_BN1.sum(dim=1)

    def whole(self, x_BNC: Tensor) -> Tensor:
        """Return a row for every original token: that of the group which it is part of, merge after merge.

        How many merges `x_BNC` has behind it follows from its number of tokens.
        """
        images = []
        for image, x_NC in enumerate(x_BNC):
            places = list(range(self.tokens[0]))
            for matchings in self.matchings[: self.tokens.index(x_NC.shape[0])]:
                groups = matchings[image].groups
                places = [next(k for k, group in enumerate(groups) if place in group) for place in places]
            images.append(x_NC[places])
        return torch.stack(images)

    def merge(self, x_BNC: Tensor, k_BHND: Tensor, v_BHND: Tensor, row_BN: Tensor) -> Tensor:
        """Reduce the tokens of every image as this block's schedule says."""
        assert self.size_BN is not None
        block, asked = len(self.matchings), self.asked
        images = zip(x_BNC, self.size_BN, k_BHND, v_BHND, row_BN, strict=True)
        left = [
            definition(asked.method)(
                Entering(
                    tokens_NC=x_NC,
                    sizes_N=size_N,
                    keys_HND=k_HND,
                    values_HND=v_HND,
                    row_N=row_N,
                    removed=asked.removed[block],
                    dropped=asked.dropped[block] if asked.dropped else 0,
                    prefix=self.prefix,
                    block=block,
                    blocks=len(asked.removed),
                    first=self.tokens[0],
                    slots=self.tokens[0] - sum(asked.removed[: block + 1]),
                    options=asked.options,
                )
            )
            for x_NC, size_N, k_HND, v_HND, row_N in images
        ]
        self.matchings.append([each.matching for each in left])
        if asked.removed[block]:
            self.similarities.append(
                [_similarity(*each) for each in zip(k_BHND, self.matchings[-1], strict=True)]
            )
        self.size_BN = torch.stack([each.sizes_K for each in left])
        self.tokens.append(self.size_BN.shape[1])
        return torch.stack([each.tokens_KC for each in left])


def _similarity(k_HND: Tensor, matching: Matching) -> float:
    """The mean cosine of keys, averaged over heads, between a token that merges and the first one of its group.

    Not a number where tokens are dropped and none merges.
    """
    cosines = cosine(k_HND.mean(dim=0))
    pairs = [cosines[group[0]][source] for group in matching.groups for source in group[1:]]
    return sum(pairs) / len(pairs) if pairs else math.nan
