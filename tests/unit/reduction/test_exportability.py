"""What the maths becomes in a captured graph: nothing that a backend gets wrong."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram

from exporter.reduction import method
from exporter.reduction.match import matched_pairs
from exporter.reduction.merge import merge_by_lookup
from exporter.reduction.sizes import initial_sizes, log_size_bias, weighted_mean
from tests.unit.reduction.match_cases import site

BATCH, HEADS, TOKENS, WIDTH = 2, 3, 17, 8


class EveryOperation(nn.Module):
    """Two merges, the bias between them, and a weighted mean behind."""

    def __init__(self, name: str, prefix: int) -> None:
        super().__init__()
        self.method, self.prefix = method(name), prefix

    def match_and_merge(self, keys: Tensor, tokens: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        match = self.method.decide(keys, at=site(4, self.prefix), **self.method.chosen({}))
        return *merge_by_lookup(tokens, sizes, match), matched_pairs(match)

    def forward(self, keys: Tensor) -> tuple[Tensor, ...]:
        tokens = keys.transpose(1, 2).flatten(2)
        tokens, sizes, first = self.match_and_merge(keys, tokens, initial_sizes(tokens))
        keys = tokens.unflatten(2, (HEADS, WIDTH)).transpose(1, 2)
        attended = (keys @ keys.transpose(2, 3) + log_size_bias(sizes, keys, 0)).softmax(-1) @ keys
        tokens, sizes, second = self.match_and_merge(attended, tokens, sizes)
        return weighted_mean(tokens, sizes, 0, 1, False), first, second


def exported(model: nn.Module, keys: Tensor, *, dynamic_batch: bool) -> ExportedProgram:
    shapes = ({0: Dim("batch")},) if dynamic_batch else None
    return torch.export.export(model, (keys,), dynamic_shapes=shapes)


def operators(program: ExportedProgram) -> Iterator[str]:
    """Yield the name of every operator, also of nested graphs, before and after decomposition."""
    for graph_module in (program.graph_module, program.run_decompositions({}).graph_module):
        for module in graph_module.modules():
            if isinstance(module, fx.GraphModule):
                yield from (str(node.target) for node in module.graph.nodes if node.op == "call_function")


@pytest.mark.parametrize(
    ("name", "prefix", "dynamic_batch"),
    [
        pytest.param("tome", 1, False, id="tome, static batch"),
        pytest.param("tome", 0, True, id="tome, dynamic batch"),
        pytest.param("pitome", 0, False, id="pitome, static batch"),
        pytest.param("pitome", 2, True, id="pitome, dynamic batch"),
    ],
)
def test_graph_has_no_scatter_and_no_sort_but_a_stable_one_and_computes_the_same(
    name: str, prefix: int, dynamic_batch: bool
) -> None:
    model = EveryOperation(name, prefix).eval()
    keys = torch.randn(BATCH, HEADS, TOKENS, WIDTH, generator=torch.Generator().manual_seed(0))

    program = exported(model, keys, dynamic_batch=dynamic_batch)

    names = set(operators(program))
    assert {operator for operator in names if "sort" in operator} == {"aten.sort.stable"}
    assert not [operator for operator in names if "scatter" in operator]
    assert not [operator for operator in names if "index_put" in operator or "index_add" in operator]
    assert not [operator for operator in names if "nonzero" in operator or "masked_select" in operator]
    for computed, expected in zip(program.module()(keys), model(keys), strict=True):
        torch.testing.assert_close(computed, expected, atol=1e-6, rtol=0.0)


@pytest.mark.parametrize("name", ["tome", "pitome"])
def test_graph_serves_another_batch(name: str) -> None:
    model = EveryOperation(name, 1).eval()
    program = exported(model, torch.randn(BATCH, HEADS, TOKENS, WIDTH), dynamic_batch=True)
    keys = torch.randn(5, HEADS, TOKENS, WIDTH, generator=torch.Generator().manual_seed(1))

    for computed, expected in zip(program.module()(keys), model(keys), strict=True):
        torch.testing.assert_close(computed, expected, atol=1e-6, rtol=0.0)


class ScatterMerge(nn.Module):
    """What the reference implementations do."""

    def forward(self, keys: Tensor) -> Tensor:
        tokens = keys.flatten(0, 1)
        index = torch.zeros(tokens.shape[0], 4, tokens.shape[2], dtype=torch.int64)
        return tokens.scatter_reduce(1, index, tokens[:, :4], reduce="mean")


def test_check_sees_a_scatter() -> None:
    program = exported(ScatterMerge(), torch.randn(BATCH, HEADS, TOKENS, WIDTH), dynamic_batch=False)

    assert [operator for operator in operators(program) if "scatter" in operator]
