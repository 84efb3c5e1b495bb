"""ToMe, with similarity that falls with size in late blocks where `size_penalty` says so."""

import math

from tests.support.definitions import Entering, Leaving, similarity, weighed
from tests.support.matching import keep_all, match_tome


def reduce(entering: Entering) -> Leaving:
    """The size-weighted mean of every group."""
    r = min(entering.removed, (len(entering.tokens_NC) - entering.prefix) // 2)
    if r == 0:
        return weighed(entering, keep_all(len(entering.tokens_NC)))
    return weighed(entering, match_tome(scores(entering), r=r, prefix=entering.prefix))


def scores(entering: Entering) -> list[list[float]]:
    """Cosines, less the penalty on log(size of both) in the second half of the blocks."""
    cosines, sizes = similarity(entering), entering.sizes_N.tolist()
    penalty = entering.options.get("size_penalty", 0.0) if 2 * entering.block >= entering.blocks else 0.0
    return [
        [cosine - penalty * math.log(sizes[i] + sizes[j]) for j, cosine in enumerate(row)]
        for i, row in enumerate(cosines)
    ]
