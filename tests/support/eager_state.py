"""What token merging carries from block to block: the size of every token, and the merges done so far."""

from collections.abc import Sequence

import torch
from torch import Tensor

from tests.support.matching import Matching, Method, drop_least_attended, match, merge


class MergeState:
    """The sizes of the tokens on their way through the blocks, and the merges done so far."""

    def __init__(self, *, merged: Sequence[int], method: Method, proportional: bool, prefix: int) -> None:
        self.merged = merged
        self.method = method
        self.proportional = proportional
        self.prefix = prefix
        self.size_BN: Tensor | None = None
        self.tokens: list[int] = []
        self.matchings: list[list[Matching]] = []

    def begin(self, x_BNC: Tensor) -> None:
        """Note the tokens that enter the first block, each of size 1."""
        if self.size_BN is None:
            self.size_BN = x_BNC.new_ones(x_BNC.shape[:2])
            self.tokens.append(x_BNC.shape[1])

    def key_bias(self, tokens: int) -> Tensor:
        """Return log(size) of the last `tokens` tokens, (B, 1, 1, tokens); zeros where size is ignored."""
        assert self.size_BN is not None
        size_BN = self.size_BN[:, -tokens:]
        bias_BN = size_BN.log() if self.proportional else torch.zeros_like(size_BN)
        return bias_BN[:, None, None, :]

    def mean(self, x_BNC: Tensor) -> Tensor:
        """Return the mean over the tokens in `x_BNC`, which are the last ones, weighted by size: (B, C)."""
        assert self.size_BN is not None
        size_BN1 = self.size_BN[:, -x_BNC.shape[1] :, None]
        return (x_BNC * size_BN1).sum(dim=1) / size_BN1.sum(dim=1)

    def merge(self, x_BNC: Tensor, metric_BNC: Tensor, row_BN: Tensor) -> Tensor:
        """Merge the tokens of every image as this block's schedule says."""
        assert self.size_BN is not None
        block = len(self.matchings)
        matchings, xs, sizes = [], [], []
        for x_NC, metric_NC, row_N, size_N in zip(x_BNC, metric_BNC, row_BN, self.size_BN, strict=True):
            matching = (
                drop_least_attended(row_N.tolist(), r=self.merged[block], prefix=self.prefix)
                if self.method == "drop"
                else match(
                    metric_NC,
                    method=self.method,
                    merged=self.merged[block],
                    prefix=self.prefix,
                    block=block,
                    blocks=len(self.merged),
                )
            )
            x_MC, size_M = merge(x_NC, size_N, matching.groups)
            matchings.append(matching)
            xs.append(x_MC)
            sizes.append(size_M)
        self.matchings.append(matchings)
        self.size_BN = torch.stack(sizes)
        self.tokens.append(self.size_BN.shape[1])
        return torch.stack(xs)
