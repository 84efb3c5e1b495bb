"""Tensors that a method reads of a checkpoint: which they are, and what is refused."""

import pytest
import torch
from torch import Tensor, nn

from exporter.errors import WeightsError
from exporter.reduction import Learned, method
from tests.support.definitions.dynamicvit import Predictor


def learned() -> Learned:
    found = method("dynamicvit").learned
    assert found is not None
    return found


def published(stages: int = 2, width: int = 8) -> dict[str, Tensor]:
    """Tensors by the names that the published checkpoints have."""
    return nn.ModuleList(Predictor(width) for _ in range(stages)).state_dict(prefix="score_predictor.")


def test_each_reduction_gets_the_tensors_of_its_own_predictor_in_order() -> None:
    state = published()

    first, second = learned().stages(state, [8, 8])

    assert len(first) == len(second) == 10
    for tensor, name in zip(second, learned().shapes(8), strict=True):
        assert tensor is state[f"score_predictor.1.{name}"]


@pytest.mark.parametrize(
    ("state", "widths", "words"),
    [
        pytest.param(
            {}, [8], r"of 1 blocks, and of the tensors score_predictor\.\* .* 10 are missing", id="none"
        ),
        pytest.param(
            published(1), [8, 8], r"10 are missing: score_predictor\.1\.in_conv\.0\.weight", id="one"
        ),
        pytest.param(published(2), [8], r"of 1 blocks, and the checkpoint has 10 tensors", id="one too many"),
        pytest.param(published(1, 4), [8], r"expected \(8,\) for this model, got \(4,\)", id="another width"),
        pytest.param(
            published(1) | {"score_predictor.0.out_conv.4.bias": torch.tensor([0.0, torch.nan])},
            [8],
            r"out_conv\.4\.bias holds values that are not finite",
            id="not finite",
        ),
    ],
)
def test_what_does_not_fit_is_refused(state: dict[str, Tensor], widths: list[int], words: str) -> None:
    with pytest.raises(WeightsError, match=f"^weights: .*{words}"):
        learned().stages(state, widths)


def test_random_tensors_depend_on_the_seed_alone() -> None:
    one, same, other = (learned().drawn([8, 8], seed) for seed in (1, 1, 2))

    assert all(torch.equal(a, b) for a, b in zip(one[1], same[1], strict=True))
    assert not torch.equal(one[0][2], other[0][2])
    assert [tuple(each.shape) for each in one[0]] == list(learned().shapes(8).values())
