"""Stable sorts for engines that have none: the same order, by comparison."""

import pytest
import torch
from torch import Tensor, nn

from exporter.errors import InternalError
from exporter.reduction.ranking import order_descending
from exporter.rewrite.decompose_stable_sort import decompose_stable_sort, sort_by_comparison


class Order(nn.Module):
    """The order of scores, and attention beside it."""

    def forward(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        heads = scores.reshape(-1, 1, 4, 6)
        return order_descending(scores), nn.functional.scaled_dot_product_attention(heads, heads, heads)


class Rising(nn.Module):
    """A stable sort that no method asks for."""

    def forward(self, scores: Tensor) -> Tensor:
        return torch.sort(scores, dim=1, stable=True).indices


def operators(program: torch.export.ExportedProgram) -> set[str]:
    return {str(node.target) for node in program.graph.nodes if node.op == "call_function"}


def tied_scores(batch: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 4, (batch, 24), generator=generator).float()


@pytest.mark.parametrize("free_batch", [False, True])
def test_sort_is_gone_attention_is_whole_and_ties_are_by_position(free_batch: bool) -> None:
    shapes = ({0: torch.export.Dim("batch")},) if free_batch else None
    exported = torch.export.export(Order(), (tied_scores(3),), dynamic_shapes=shapes)
    assert "aten.sort.stable" in operators(exported)

    decomposed = decompose_stable_sort(exported, sort_by_comparison)

    assert not [operator for operator in operators(decomposed) if "sort" in operator]
    assert "aten.scaled_dot_product_attention.default" in operators(decomposed)
    found, _ = decomposed.module()(tied_scores(3))
    expected = torch.sort(tied_scores(3), dim=1, descending=True, stable=True).indices
    assert torch.equal(found, expected)


def test_another_stable_sort_is_not_taken_for_this_one() -> None:
    exported = torch.export.export(Rising(), (tied_scores(2),))

    with pytest.raises(InternalError, match="descending: False"):
        decompose_stable_sort(exported, sort_by_comparison)
