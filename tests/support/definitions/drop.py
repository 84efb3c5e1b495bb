"""`tests.support.drop_by_class_attention`: the least attended patches are dropped."""

from tests.support.definitions import Entering, Leaving, weighed
from tests.support.matching import drop_least_attended


def reduce(entering: Entering) -> Leaving:
    """The others stay as they are."""
    row = entering.row_N.tolist()
    return weighed(entering, drop_least_attended(row, r=entering.removed, prefix=entering.prefix))
