"""Merging inside a graph: what follows reads fewer tokens, and every original keeps its weight."""

import pytest
import torch
from torch import Tensor, fx, nn

from exporter.anatomy import examine
from exporter.capture import Program, capture
from exporter.errors import InternalError
from exporter.forms import Forms
from exporter.graph import copy_graph, run_passes
from exporter.graph.nodes import calls
from exporter.graph.operators import sdpa
from exporter.reduction import Site, method
from exporter.reduction.match import read_match
from exporter.reduction.sizes import attend_with_bias
from exporter.rewrite.generalize_token_shapes import GeneralizeTokenShapes
from exporter.rewrite.insert_token_merge import InsertTokenMerge
from tests.unit.rewrite.small_models import Block, SmallVit, images, seeded

TOKENS = 17


def captured(model: nn.Module) -> Program:
    program = capture(seeded(model), images())
    run_passes(program.graph_module, [GeneralizeTokenShapes()])
    return program


def sites(merged: tuple[int, ...], *, dropped: int = 0, prefix: int = 1) -> tuple[Site | None, ...]:
    """Return a place for every block in which tokens leave."""
    return tuple(
        Site(r=r, dropped=min(r, dropped), prefix=prefix, depth=block / len(merged)) if r else None
        for block, r in enumerate(merged)
    )


def with_merges(
    program: Program,
    merged: tuple[int, ...],
    *,
    name: str = "tome",
    proportional: bool = True,
    forms: Forms | None = None,
) -> fx.GraphModule:
    graph_module = copy_graph(program.graph_module)
    chosen = method(name)
    merge = InsertTokenMerge(
        anatomy=examine(graph_module),
        sites=sites(merged, prefix=examine(graph_module).prefix),
        method=chosen,
        options=chosen.chosen({}),
        proportional=proportional,
        forms=forms or Forms(),
    )
    (outcome,) = run_passes(graph_module, [merge])
    assert outcome.rewrites == sum(r > 0 for r in merged)
    return graph_module


def one_colour(batch: int = 2) -> Tensor:
    """Return images each of one colour, another one per image: all of its patches are equal."""
    colours = torch.linspace(-1, 1, 3 * batch).reshape(batch, 3, 1, 1)
    return colours.expand(batch, 3, 8, 8).contiguous()


@pytest.mark.parametrize(
    ("projection", "head", "name"),
    [
        pytest.param("fused", "class", "tome", id="class token"),
        pytest.param("fused", "mean", "tome", id="mean of all tokens"),
        pytest.param("separate", "patch mean", "tome", id="mean of the patches"),
        pytest.param("separate", "both", "tome", id="class token and mean of the patches"),
        pytest.param("torch", "mean", "tome", id="nn.MultiheadAttention"),
        pytest.param("fused", "both", "pitome", id="pitome"),
    ],
)
def test_merging_equal_tokens_changes_nothing(projection: str, head: str, name: str) -> None:
    blocks = [Block(projection) for _ in range(3)]  # type: ignore[arg-type]
    program = captured(SmallVit(*blocks, head=head, positions=False))  # type: ignore[arg-type]

    reduced = with_merges(program, (5, 0, 4), name=name)

    expected = program.graph_module(one_colour())
    for found, dense in zip(reduced(one_colour()), expected, strict=False):
        torch.testing.assert_close(found, dense, atol=1e-5, rtol=0.0)


@pytest.mark.parametrize("projection", ["fused", "torch"])
@pytest.mark.parametrize(("mask", "selection"), [("expanded", "one-hot"), ("folded", "gather")])
def test_every_form_merges_the_same_tokens_to_the_same_numbers(
    mask: str, selection: str, projection: str
) -> None:
    program = captured(SmallVit(*(Block(projection) for _ in range(3)), head="both"))  # type: ignore[arg-type]
    forms = Forms(mask=mask, selection=selection)  # type: ignore[arg-type]

    found = with_merges(program, (5, 0, 4), forms=forms)(images())

    for value, expected in zip(found, with_merges(program, (5, 0, 4))(images()), strict=True):
        torch.testing.assert_close(value, expected, atol=1e-5, rtol=0.0)


def test_without_proportional_attention_merged_tokens_lose_their_weight() -> None:
    program = captured(SmallVit(Block(), Block(), positions=False))

    found, *_ = with_merges(program, (8, 0), proportional=False)(one_colour())

    assert (found - program.graph_module(one_colour())[0]).abs().max() > 1e-3


def test_merging_different_tokens_is_visible() -> None:
    program = captured(SmallVit(Block(), Block()))

    found, *_ = with_merges(program, (4, 0))(images())

    assert (found - program.graph_module(images())[0]).abs().max() > 1e-4


def test_matches_of_merging_blocks_become_outputs_behind_the_model_s_own() -> None:
    program = captured(SmallVit(Block(), Block(), Block(), head="both"))

    graph_module = with_merges(program, (5, 0, 3))

    assert [tuple(value.shape) for value in graph_module(images(3))] == [
        (3, 5),
        (3, 16),
        (3, 12 + 5 + 5),
        (3, 9 + 3 + 3),
    ]


def test_recorded_matches_are_of_patches_each_source_once() -> None:
    records = with_merges(captured(SmallVit(Block(), Block())), (5, 4))(images())[1:]

    for tokens, r, record in zip((TOKENS, TOKENS - 5), (5, 4), records, strict=True):
        match = read_match(record, r)
        assert match.kept_BK[:, 0].tolist() == [0, 0]
        assert torch.cat(match[:2], dim=1).sort(dim=1).values.tolist() == [list(range(tokens))] * 2
        assert match.target_BR.min() >= 1
        assert match.target_BR.max() < tokens - r


def test_only_attention_behind_a_merge_is_weighed_by_size() -> None:
    graph_module = with_merges(captured(SmallVit(Block(), Block(), Block(), Block())), (0, 5, 0, 0))

    attentions = calls(graph_module.graph, sdpa, attend_with_bias)
    assert [node.target for node in attentions] == [sdpa, sdpa, attend_with_bias, attend_with_bias]


def test_token_counts_fall_block_by_block() -> None:
    graph_module = with_merges(captured(SmallVit(Block(), Block(), Block(), head="tokens")), (5, 0, 0))
    counts: list[int] = []

    class Watch(fx.Interpreter):
        def run_node(self, n: fx.Node) -> object:
            if n.target in (sdpa, attend_with_bias):
                counts.append(self.env[n.all_input_nodes[0]].shape[-2])
            return super().run_node(n)

    Watch(graph_module).run(images())

    assert counts == [TOKENS, TOKENS - 5, TOKENS - 5]


def test_batch_of_another_size_runs() -> None:
    graph_module = with_merges(captured(SmallVit(Block("torch"), Block("torch"))), (5, 3))

    (alone, *_), (together, *_) = graph_module(images(3)[:1]), graph_module(images(3))

    torch.testing.assert_close(alone, together[:1], atol=1e-6, rtol=0.0)


def test_registers_are_protected() -> None:
    record = with_merges(captured(SmallVit(Block(), prefix=5)), (8,))(images())[1]

    match = read_match(record, 8)
    assert match.kept_BK[:, :5].tolist() == [list(range(5))] * 2
    assert match.target_BR.min() >= 5


def test_literal_token_counts_are_a_missing_requirement() -> None:
    graph_module = capture(seeded(SmallVit(Block())), images()).graph_module
    merge = InsertTokenMerge(anatomy=examine(graph_module), sites=sites((4,)), method=method("tome"))

    with pytest.raises(
        InternalError, match=r"pass insert_token_merge requires: .* still names its token count"
    ):
        run_passes(graph_module, [merge])
