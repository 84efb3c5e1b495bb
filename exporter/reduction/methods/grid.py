"""grid: a control. It drops r patches of each block at even distances, the same ones of every image."""

from torch import Tensor

from exporter.reduction.fixed_choice import differs, drop_patches
from exporter.reduction.match import Match
from exporter.reduction.method import Method, Site
from exporter.schedule import all_dropped, all_patches_but_one

_EXACT = 1e-9  # depth is a fraction of integers, which a float may miss from below


def decide(tokens_BNC: Tensor, *, at: Site) -> Match:
    """Drop patch floor((i + depth) n / r) for i in 0..r-1, of n patches in raster order.

    The depth moves the comb on from block to block, so that the gaps of one block do not fall beside those of the block
    before it, and the patches that stay cover the image evenly.

    Args:
        tokens_BNC: whose number is all that is read.
        at: 0 < r < N - prefix.

    Returns:
        A match whose output order is that of the tokens.
    """
    patches = tokens_BNC.shape[1] - at.prefix
    return drop_patches(
        tokens_BNC, [int((tooth + at.depth) * patches / at.r + _EXACT) for tooth in range(at.r)], at
    )


def regret(tokens_BNC: Tensor, *, match: Match, at: Site) -> Tensor:
    """0 for these patches, infinite for others, (B,)."""
    return differs(match, decide(tokens_BNC, at=at))


METHOD = Method(
    name="grid",
    reference="none: a control, to see what choosing is worth",
    does="drops r patches at even distances, the same ones of every image",
    licence="none",
    decide=decide,
    regret=regret,
    reads=("tokens",),
    cap=all_patches_but_one,
    dropped=all_dropped,
    proportional=False,
)
