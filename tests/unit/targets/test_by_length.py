"""Texts run on the shortest engine that takes them, each engine is called once, and the order stays."""

import numpy as np
import pytest

from exporter.errors import UsageError
from exporter.signature import Array, Signature, TensorSpec
from exporter.targets import by_length
from tests.support.fake_runner import FakeRunner

LENGTHS = (4, 8)


def runner(length: int) -> FakeRunner:
    """Gives the first id of each text, and the length of the engine."""
    names = ("input_ids", "attention_mask")
    specs = tuple(TensorSpec(name=name, dtype="int64", shape=("batch", length)) for name in names)
    return FakeRunner(
        compute=lambda ids, mask: {"features": np.stack([ids[:, 0], np.full(len(ids), length)], axis=1)},
        signature=Signature(inputs=specs, outputs=(), masks=("attention_mask",)),
    )


def texts(*counts: int) -> dict[str, Array]:
    """Texts of that many tokens; the ids of the first are 10, 11 and so on, of the second 20, 21."""
    mask = (np.arange(LENGTHS[-1]) < np.array(counts)[:, None]).astype(np.int64)
    ids = (10 * np.arange(1, len(counts) + 1)[:, None] + np.arange(LENGTHS[-1])) * mask
    return {"input_ids": ids, "attention_mask": mask}


def test_every_text_runs_on_the_shortest_engine_that_takes_it() -> None:
    runners = [runner(length) for length in LENGTHS]

    outputs = by_length(runners)(texts(8, 4, 1, 5))

    assert outputs["features"].tolist() == [[10, 8], [20, 4], [30, 4], [40, 8]]


def test_each_engine_gets_all_of_its_texts_at_once_cut_to_its_length() -> None:
    runners = [runner(length) for length in LENGTHS]

    by_length(runners)(texts(8, 4, 1))

    short, long = (each.seen for each in runners)
    assert [each.tolist() for each in short] == [
        [[20, 21, 22, 23], [30, 0, 0, 0]],
        [[1, 1, 1, 1], [1, 0, 0, 0]],
    ]
    assert [each.shape for each in long] == [(1, 8), (1, 8)]


def test_engine_without_texts_of_its_own_is_not_called() -> None:
    runners = [runner(length) for length in LENGTHS]

    by_length(runners)(texts(2, 3))

    assert runners[1].seen == []


def test_inputs_are_those_of_the_longest_engine() -> None:
    with pytest.raises(UsageError, match="input_ids: expected at least one row of 8"):
        by_length([runner(length) for length in LENGTHS])(
            {name: each[:, :4] for name, each in texts(1).items()}
        )


def test_one_engine_alone_is_itself() -> None:
    alone = runner(8)

    assert by_length([alone]) is alone
