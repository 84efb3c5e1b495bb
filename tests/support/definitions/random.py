"""random: the patches with the smallest SHA-256 of seed, depth and number are dropped."""

import math
from hashlib import sha256

from tests.support.definitions import Entering, Leaving, weighed
from tests.support.matching import Matching


def reduce(entering: Entering) -> Leaving:
    """The others stay, in order."""
    depth, seed = entering.block / entering.blocks, entering.options.get("seed", 0)
    patches = len(entering.tokens_NC) - entering.prefix
    lots = {i: sha256(f"{seed} {depth:.6f} {i}".encode()).hexdigest() for i in range(patches)}
    gone = sorted(lots, key=lots.__getitem__)[: entering.removed]
    return without(entering, gone)


def without(entering: Entering, gone: list[int]) -> Leaving:
    """Drop patches, numbered from the prefix on."""
    tokens = range(len(entering.tokens_NC))
    groups = [[token] for token in tokens if token - entering.prefix not in gone]
    return weighed(entering, Matching(groups=groups, margin=math.inf))
