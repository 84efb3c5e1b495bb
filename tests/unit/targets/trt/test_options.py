"""Options that no machine can build are refused as soon as they are made."""

from typing import Any

import pytest

from exporter.errors import UsageError
from exporter.targets.trt.options import TrtOptions


@pytest.mark.parametrize(
    ("options", "words"),
    [
        pytest.param({"min_batch": 1}, r"trt\.opt_batch: expected all of", id="min alone"),
        pytest.param({"min_batch": 1, "opt_batch": 2}, r"trt\.max_batch: expected all of", id="no max"),
        pytest.param(
            {"min_batch": 4, "opt_batch": 2, "max_batch": 8},
            r"min <= opt <= max, got \(4, 2, 8\)",
            id="order",
        ),
        pytest.param({"min_batch": 0, "opt_batch": 2, "max_batch": 8}, "1 <= min", id="zero"),
        pytest.param({"builder_level": 6}, r"trt\.builder_level: expected 0 to 5, got 6", id="level above"),
        pytest.param({"builder_level": -1}, r"expected 0 to 5, got -1", id="level below"),
        pytest.param({"workspace_mb": 0}, r"trt\.workspace_mb: expected at least 1, got 0", id="workspace"),
        pytest.param(
            {"builder_level": 0, "timing_cache": "k"},
            r"does not use one at builder_level 0",
            id="unused cache",
        ),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        TrtOptions(**options)


def test_three_batches_make_a_profile() -> None:
    assert TrtOptions(min_batch=1, opt_batch=8, max_batch=8).profile == (1, 8, 8)
    assert TrtOptions().profile is None
