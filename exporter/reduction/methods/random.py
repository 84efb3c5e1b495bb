"""random: a control. It drops r patches of each block by lot, the same ones of every image."""

from dataclasses import dataclass
from hashlib import sha256

from torch import Tensor

from exporter.reduction.fixed_choice import differs, drop_patches
from exporter.reduction.match import Match
from exporter.reduction.method import Method, Site
from exporter.schedule import all_dropped, all_patches_but_one


def decide(tokens_BNC: Tensor, *, at: Site, seed: int) -> Match:
    """Drop the r patches whose lots come first.

    A patch's lot is the SHA-256 of the seed, the block's depth and the patch's number, so that a seed means the same
    patches with every version of every library.

    Args:
        tokens_BNC: whose number is all that is read.
        at: 0 < r < N - prefix.
        seed: of the lots.

    Returns:
        A match whose output order is that of the tokens.
    """
    patches = range(tokens_BNC.shape[1] - at.prefix)
    by_lot = sorted(patches, key=lambda patch: sha256(f"{seed} {at.depth:.6f} {patch}".encode()).digest())
    return drop_patches(tokens_BNC, sorted(by_lot[: at.r]), at)


def regret(tokens_BNC: Tensor, *, match: Match, at: Site, seed: int) -> Tensor:
    """0 for the patches of this seed, infinite for others, (B,)."""
    return differs(match, decide(tokens_BNC, at=at, seed=seed))


@dataclass(frozen=True, kw_only=True)
class Options:
    """What can be set of the random control.

    Attributes:
        seed: which patches are drawn.
    """

    seed: int = 0


METHOD = Method(
    name="random",
    reference="none: a control, to see what choosing is worth",
    does="drops r patches that were drawn by lot, the same ones of every image",
    licence="none",
    decide=decide,
    regret=regret,
    reads=("tokens",),
    cap=all_patches_but_one,
    dropped=all_dropped,
    proportional=False,
    options=Options,
)
