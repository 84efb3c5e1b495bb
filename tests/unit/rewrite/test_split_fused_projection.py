"""Queries get a projection of their own, where only some of them are read."""

import pytest
import torch
from torch import nn

from exporter.graph.nodes import calls, shape_of
from exporter.graph.operators import aten, sdpa
from exporter.rewrite.generalize_token_shapes import GeneralizeTokenShapes
from exporter.rewrite.split_fused_projection import SplitFusedProjection
from tests.unit.rewrite.small_models import WIDTH, Block, Rewritten, SmallVit, images, rewritten, seeded

FIRST = (GeneralizeTokenShapes(),)


def split(model: nn.Module) -> Rewritten:
    return rewritten(seeded(model), images(), SplitFusedProjection(), first=FIRST)


def widths(pair: Rewritten) -> list[int]:
    """Return the output widths of all linear layers."""
    return [shape_of(node)[-1] for node in calls(pair.after.graph, aten.linear.default)]


@pytest.mark.parametrize("bias", [pytest.param(True, id="bias"), pytest.param(False, id="no bias")])
@pytest.mark.parametrize("projection", ["fused", "torch"])
def test_last_block_of_a_class_token_head_is_split_and_numbers_stay(projection: str, bias: bool) -> None:
    pair = split(SmallVit(Block(projection, bias=bias), Block(projection, bias=bias)))  # type: ignore[arg-type]

    assert pair.outcome.rewrites == 1
    assert widths(pair).count(3 * WIDTH) == 1
    assert widths(pair).count(2 * WIDTH) == 1 + 2  # keys and values, and the first layer of two MLPs
    pair.assert_same_signature()
    pair.assert_same_numbers(images(3), atol=1e-6)


def test_queries_come_from_a_projection_that_computes_nothing_else() -> None:
    pair = split(SmallVit(Block()))

    (attention,) = calls(pair.after.graph, sdpa)
    query, key, _ = attention.args[:3]
    projections = [
        node for node in calls(pair.after.graph, aten.linear.default) if shape_of(node)[-1] == WIDTH
    ]
    assert shape_of(query) == shape_of(key)  # type: ignore[arg-type]
    assert any(query in _behind(node) for node in projections)


def _behind(node: torch.fx.Node) -> set[torch.fx.Node]:
    """Return what is reached from a node through values of one reader."""
    reached, front = {node}, node
    while len(front.users) == 1:
        (front,) = front.users
        reached.add(front)
    return reached


def test_prefix_of_two_whose_first_is_read_is_split() -> None:
    pair = split(SmallVit(Block(), prefix=2))

    assert pair.outcome.rewrites == 1
    pair.assert_same_numbers(images(), atol=1e-6)


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(SmallVit(Block(), Block(), head="mean"), id="all tokens are read"),
        pytest.param(SmallVit(Block(), head="both"), id="class token and patches are read"),
        pytest.param(SmallVit(Block("separate")), id="queries are projected separately"),
        pytest.param(SmallVit(Block("fused", norm=True)), id="queries are normalised"),
    ],
)
def test_everything_else_is_left_alone(model: nn.Module) -> None:
    split(model).assert_untouched()
