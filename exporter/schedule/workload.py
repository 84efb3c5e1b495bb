"""Multiply-accumulates of a scheduled model.

In: a `Workload`, the anatomy's inventory of one image's matrix products, sorted by how they grow with the token
count. Out: MACs for any schedule. For a plain ViT this is the formula of the literature, patch embedding + sum over
blocks of 4 N C^2 + 2 N^2 C + 2 m N' C^2 + head, since the N' that leaves a merge is the N of everything up to the
next one.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Workload:
    """MACs of one image, by segment; segment l lies between the merges of blocks l - 1 and l.

    Attributes:
        fixed: MACs that do not depend on the token count: patch embedding, head.
        per_token: MACs per token in segments 0..L, length L + 1.
        per_pair: MACs per pair of tokens in segments 0..L, length L + 1.
    """

    fixed: int
    per_token: tuple[int, ...]
    per_pair: tuple[int, ...]

    def macs(self, tokens: Sequence[int]) -> int:
        """MACs of one image when `tokens[l]` tokens flow through segment l (length L + 1)."""
        linear = sum(n * each for n, each in zip(tokens, self.per_token, strict=True))
        pairs = sum(n * n * each for n, each in zip(tokens, self.per_pair, strict=True))
        return self.fixed + linear + pairs

    def saved(self, tokens: Sequence[int], dense: Sequence[int]) -> float:
        """Share of the MACs of one image that these tokens save, in place of the dense ones, both by segment."""
        whole = self.macs(dense)
        return (whole - self.macs(tokens)) / whole if whole else 0.0
