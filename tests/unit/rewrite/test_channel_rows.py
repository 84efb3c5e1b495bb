"""Which channels of a projection stand at each head and position, found by running the graph on their numbers."""

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from exporter.capture import capture
from exporter.graph.nodes import calls
from exporter.graph.operators import sdpa
from exporter.rewrite.channel_rows import projected_heads
from tests.unit.rewrite.small_models import HEADS, WIDTH, Attention, random, seeded

HEAD = WIDTH // HEADS


def operands(model: nn.Module) -> tuple[fx.GraphModule, list[fx.Node]]:
    graph_module = capture(seeded(model), random(2, 5, WIDTH)).graph_module
    (attention,) = calls(graph_module.graph, sdpa)
    return graph_module, list(attention.all_input_nodes[:3])


@pytest.mark.parametrize(
    ("projection", "offsets"),
    [
        pytest.param("fused", (0, WIDTH, 2 * WIDTH), id="fused qkv"),
        pytest.param("separate", (0, 0, 0), id="separate"),
        pytest.param("torch", (0, WIDTH, 2 * WIDTH), id="nn.MultiheadAttention"),
    ],
)
def test_rows_of_queries_keys_and_values_are_consecutive_per_head(
    projection: str, offsets: tuple[int, ...]
) -> None:
    graph_module, found = operands(Attention(projection))  # type: ignore[arg-type]

    for operand, offset in zip(found, offsets, strict=True):
        heads = projected_heads(graph_module, operand)
        assert heads is not None
        assert torch.equal(heads.rows_HD, torch.arange(offset, offset + WIDTH).reshape(HEADS, HEAD))


class Interleaved(Attention):
    """Heads are the fast axis: channel c of head h is row c * H + h."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            part(x).unflatten(-1, (HEAD, HEADS)).permute(0, 3, 1, 2) for part in (self.q, self.k, self.v)
        )
        return functional.scaled_dot_product_attention(q, k, v)


def test_rows_of_interleaved_heads_are_strided() -> None:
    graph_module, (query, _, _) = operands(Interleaved("separate"))

    heads = projected_heads(graph_module, query)

    assert heads is not None
    assert torch.equal(heads.rows_HD, torch.arange(WIDTH).reshape(HEAD, HEADS).T)


def test_normalised_queries_are_no_bare_projection() -> None:
    graph_module, (query, key, _) = operands(Attention("fused", norm=True))

    assert projected_heads(graph_module, query) is None
    assert projected_heads(graph_module, key) is not None
