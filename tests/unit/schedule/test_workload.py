"""MACs of a workload: token counts weigh linear work once and attention twice."""

import pytest

from exporter.schedule import Workload


def test_each_segment_counts_its_own_tokens() -> None:
    workload = Workload(fixed=1000, per_token=(1, 10, 100), per_pair=(2, 3, 0))

    # 1000 + (5 + 40 + 300) + (2 * 25 + 3 * 16)
    assert workload.macs((5, 4, 3)) == 1443


def test_wrong_number_of_segments_is_not_accepted() -> None:
    with pytest.raises(ValueError, match="zip"):
        Workload(fixed=0, per_token=(1, 1), per_pair=(1, 1)).macs((5,))
