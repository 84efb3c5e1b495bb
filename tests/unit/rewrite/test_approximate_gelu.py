"""GELU by tanh, alone and within the product before it."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from exporter.anatomy import executed_macs
from exporter.graph.nodes import calls
from exporter.graph.operators import aten
from exporter.rewrite.approximate_gelu import ApproximateGelu, linear_gelu
from tests.unit.rewrite.small_models import random, rewritten, seeded


class Mlp(nn.Module):
    """Two layers with a GELU between them; `shared` also returns what enters the GELU."""

    def __init__(self, *, bias: bool = True, shared: bool = False) -> None:
        super().__init__()
        self.first, self.last, self.shared = nn.Linear(6, 12, bias=bias), nn.Linear(12, 6), shared

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        result: Tensor = self.last(functional.gelu(hidden))
        return result + hidden[..., :6] if self.shared else result


def test_gelu_is_approximated_by_tanh() -> None:
    model, inputs = seeded(Mlp()), random(2, 4, 6)

    pair = rewritten(model, inputs, ApproximateGelu(within_product=False))

    hidden = functional.gelu(model.first(inputs), approximate="tanh")  # type: ignore[operator]
    torch.testing.assert_close(pair.after(inputs)[0], model.last(hidden))  # type: ignore[operator]


def test_a_product_computes_the_gelu_after_it() -> None:
    pair = rewritten(seeded(Mlp()), random(2, 4, 6), ApproximateGelu(within_product=True))

    assert len(calls(pair.after.graph, linear_gelu)) == 1
    assert not calls(pair.after.graph, aten.gelu.default)
    pair.assert_same_numbers(random(2, 4, 6, seed=3), atol=1e-3)


def test_multiply_accumulates_of_such_a_product_are_counted() -> None:
    program = torch.export.export(_Product(), (random(2, 4, 6),))

    assert executed_macs(program.module(check_guards=False).graph) == 4 * 6 * 12


class _Product(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 12)

    def forward(self, x: Tensor) -> Tensor:
        return linear_gelu(x, self.layer.weight, self.layer.bias)


@pytest.mark.parametrize("options", [{"bias": False}, {"shared": True}])
def test_layers_without_bias_or_read_elsewhere_stay(options: dict[str, bool]) -> None:
    pair = rewritten(seeded(Mlp(**options)), random(2, 4, 6), ApproximateGelu(within_product=True))

    assert not calls(pair.after.graph, linear_gelu)
    pair.assert_same_numbers(random(2, 4, 6, seed=3), atol=1e-3)
