"""What every runner keeps, whatever its engine: each engine's tests inherit these for its own runner."""

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from exporter.errors import UsageError
from exporter.targets.runner import Runner

Opened = Callable[[int | str], Runner]
"""Makes a runner for the model of `write_doubling`; a batch that is text is free."""


def rows(count: int) -> Any:
    """Return (count, 2) numbers that all differ."""
    return np.arange(2 * count, dtype=np.float32).reshape(count, 2)


class RunnerContract:
    """Takes a fixture `runner_of`, an `Opened`."""

    @pytest.mark.parametrize("batch", [1, 3, 8, "batch"])
    def test_as_many_rows_come_out_as_go_in_and_in_their_order(
        self, batch: int | str, runner_of: Opened
    ) -> None:
        runner = runner_of(batch)

        for count in (1, 2, 3, 7, 20):
            outputs = runner(rows(count))

            np.testing.assert_array_equal(outputs["doubled"], 2 * rows(count))
            assert list(outputs) == ["doubled", "centred"]

    def test_short_batch_is_padded_with_its_last_row(self, runner_of: Opened) -> None:
        outputs = runner_of(4)(rows(2))

        padded = rows(2)[[0, 1, 1, 1]]
        np.testing.assert_allclose(outputs["centred"], (padded - padded.mean(axis=0))[:2])

    def test_results_of_one_call_outlive_the_next(self, runner_of: Opened) -> None:
        runner = runner_of(2)

        first = runner(rows(2))["doubled"]
        runner(100 + rows(2))

        np.testing.assert_array_equal(first, 2 * rows(2))

    def test_memory_layout_does_not_matter(self, runner_of: Opened) -> None:
        runner, fixed = runner_of(3), rows(6)
        fixed.flags.writeable = False

        np.testing.assert_array_equal(runner(np.asfortranarray(rows(6)))["doubled"], 2 * rows(6))
        np.testing.assert_array_equal(runner(rows(12)[::2])["doubled"], 2 * rows(12)[::2])
        np.testing.assert_array_equal(runner(fixed)["doubled"], 2 * rows(6))

    def test_pickle_carries_no_engine(self, runner_of: Opened) -> None:
        runner = runner_of(2)
        runner(rows(2))

        copy = pickle.loads(pickle.dumps(runner))

        assert copy == runner
        assert copy._engine is None
        np.testing.assert_array_equal(copy(rows(3))["doubled"], 2 * rows(3))

    @pytest.mark.parametrize(
        ("images", "words"),
        [
            pytest.param(np.zeros((2, 3), np.float32), ["images", "of 2", "(2, 3)"], id="width"),
            pytest.param(np.zeros(2, np.float32), ["images", "(2,)"], id="rank"),
            pytest.param(np.zeros((0, 2), np.float32), ["at least one", "(0, 2)"], id="none"),
            pytest.param(np.zeros((1, 2), np.float16), ["float32", "float16"], id="half"),
            pytest.param(np.zeros((1, 2), np.int64), ["float32", "int64"], id="integers"),
        ],
    )
    def test_wrong_images_are_refused(self, images: Any, words: list[str], runner_of: Opened) -> None:
        with pytest.raises(UsageError) as caught:
            runner_of(1)(images)

        assert [word for word in words if word not in str(caught.value)] == []
