"""The table of operators says what PyTorch itself computes with them."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from exporter.capture import capture
from exporter.graph.nodes import calls
from exporter.graph.operators import TRAITS, Trait, aten, has, is_pointwise, operators


class Applied(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> Tensor:
        return self.function(images)


@pytest.mark.parametrize("traits", list(Trait), ids=lambda trait: str(trait.name))
def test_every_trait_has_operators(traits: Trait) -> None:
    assert operators(traits)
    assert all(TRAITS[operator] & traits for operator in operators(traits))


@pytest.mark.parametrize("operator", sorted(operators(Trait.COPY), key=str), ids=str)
def test_a_copy_gives_the_same_values(operator: Callable[[Tensor], Tensor]) -> None:
    values = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(operator(values), values)


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(nn.functional.gelu, id="gelu"),
        pytest.param(nn.functional.hardswish, id="no tag"),
        pytest.param(nn.functional.mish, id="in no row of any table"),
        pytest.param(lambda x: torch.where(x > 0, x, 0.5 * x), id="comparison"),
    ],
)
def test_elementwise_operators_keep_every_entry_in_its_place(function: Callable[[Tensor], Tensor]) -> None:
    graph = capture(Applied(function), torch.zeros(2, 3)).graph_module.graph
    assert all(is_pointwise(node) for node in graph.nodes if node.op == "call_function")


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda x: x.softmax(-1), id="softmax"),
        pytest.param(lambda x: x.flip(-1), id="flip"),
        pytest.param(lambda x: x.cumsum(-1), id="running sum"),
        pytest.param(lambda x: x @ x.transpose(-1, -2), id="product"),
    ],
)
def test_what_mixes_entries_is_not_elementwise(function: Callable[[Tensor], Tensor]) -> None:
    graph = capture(Applied(function), torch.zeros(2, 3)).graph_module.graph
    assert not all(is_pointwise(node) for node in graph.nodes if node.op == "call_function")


def test_a_mean_is_a_reduction_of_wide_range() -> None:
    (mean,) = calls(
        capture(Applied(lambda x: x.mean(1)), torch.zeros(2, 3)).graph_module.graph, aten.mean.dim
    )
    assert has(mean, Trait.REDUCTION)
    assert has(mean, Trait.WIDE_RANGE)
    assert not has(mean, Trait.MATMUL)
