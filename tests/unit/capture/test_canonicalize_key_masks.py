"""Masks over padding get one form, however they are spelled; others are left alone."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from exporter.anatomy import examine
from exporter.capture import Program, capture
from exporter.graph.nodes import calls, mask_of, shape_of
from exporter.graph.operators import sdpa
from tests.support.text_encoders import ids_and_mask

COUNT = 6
Make = Callable[[Tensor], Tensor]


class OneBlock(nn.Module):
    """Embeddings, and one attention whose mask `make` makes of the model's."""

    def __init__(self, make: Make) -> None:
        super().__init__()
        self.make = make
        self.words = nn.Embedding(20, 8)
        self.norm = nn.LayerNorm(8)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        tokens = self.words(ids)
        heads = tokens.unflatten(2, (2, 4)).transpose(1, 2)
        attended = scaled_dot_product_attention(heads, heads, heads, attn_mask=self.make(mask))
        normalised: Tensor = self.norm(tokens + attended.transpose(1, 2).flatten(2))
        return normalised[:, 0]


class WrittenOut(OneBlock):
    """The same with softmax, and a bias of positions before the mask."""

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        tokens = self.words(ids)
        heads = tokens.unflatten(2, (2, 4)).transpose(1, 2)
        bias = torch.arange(COUNT * COUNT).reshape(1, 1, COUNT, COUNT) / 10
        logits = heads @ heads.transpose(2, 3) / 2 + bias + self.make(mask)
        normalised: Tensor = self.norm(tokens + (logits.softmax(-1) @ heads).transpose(1, 2).flatten(2))
        return normalised[:, 0]


def expanded(mask: Tensor) -> Tensor:
    return (mask[:, None, None, :] > 0).expand(-1, 1, COUNT, COUNT)


def added(mask: Tensor) -> Tensor:
    return (1 - mask[:, None, None, :].float()) * -10000.0


def causal(mask: Tensor) -> Tensor:
    return torch.ones(COUNT, COUNT).tril().bool() & (mask[:, None, None, :] > 0)


def weighing(mask: Tensor) -> Tensor:
    return mask[:, None, None, :].float()


def captured(model: nn.Module) -> Program:
    return capture(model, *(torch.ones(2, COUNT, dtype=torch.int64) for _ in range(2)))


@pytest.mark.parametrize(
    "model",
    [OneBlock(expanded), OneBlock(added), WrittenOut(added)],
    ids=["boolean", "added", "beside-a-bias"],
)
def test_a_mask_over_padding_becomes_one_row(model: nn.Module) -> None:
    program = captured(model)
    ids, mask = ids_and_mask([COUNT, 4, 1], COUNT)

    padding = examine(program.graph_module).padding.mask

    assert padding is not None
    assert shape_of(padding) == (2, 1, 1, COUNT)
    assert padding.meta["val"].dtype == torch.bool
    torch.testing.assert_close(program.graph_module(ids, mask)[0], model(ids, mask), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        pytest.param(causal, "another one for every query", id="causal"),
        pytest.param(weighing, "weighs keys", id="weighing"),
    ],
)
def test_other_masks_stay_as_they_are(make: Make, reason: str) -> None:
    program = captured(OneBlock(make))
    (attention,) = calls(program.graph_module.graph, sdpa)
    mask = mask_of(attention)

    assert reason in program.outcomes[-1].declined[0]
    assert mask is not None
    assert shape_of(mask)[-1] == COUNT
    assert examine(program.graph_module).padding.mask is None
