"""PiToMe, in the blocks of `bipartite` as its published code has it."""

from tests.support.definitions import Entering, Leaving, similarity, weighed
from tests.support.matching import keep_all, match_pitome, match_pitome_everywhere

FIRST_MARGIN = 0.9


def reduce(entering: Entering) -> Leaving:
    """The size-weighted mean of every group."""
    options, patches = entering.options, len(entering.tokens_NC) - entering.prefix
    r = min(entering.removed, patches // 2)
    if r == 0:
        return weighed(entering, keep_all(len(entering.tokens_NC)))
    first_half = 2 * entering.block < entering.blocks
    bipartite = options.get("bipartite", "all")
    everywhere = bipartite == "all" or bipartite == ("first-half" if first_half else "second-half")
    margin = options.get("margin", FIRST_MARGIN) * (1 - entering.block / entering.blocks)
    how = {"r": r, "prefix": entering.prefix, "margin": margin, "energy": options.get("energy", "elu")}
    if everywhere:
        return weighed(entering, match_pitome_everywhere(similarity(entering), **how))
    deal = options.get("deal", "alternate")
    return weighed(entering, match_pitome(similarity(entering), **how, deal=deal))
