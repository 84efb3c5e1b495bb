"""grid: patch floor((i + block / blocks) n / r) of n is dropped, for i below r."""

from fractions import Fraction
from math import floor

from tests.support.definitions import Entering, Leaving
from tests.support.definitions.random import without


def reduce(entering: Entering) -> Leaving:
    """The others stay, in order."""
    patches, r = len(entering.tokens_NC) - entering.prefix, entering.removed
    start = Fraction(entering.block, entering.blocks)
    return without(entering, [floor((i + start) * Fraction(patches, r)) for i in range(r)])
