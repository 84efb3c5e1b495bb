"""The program that is handed to the library: other operators, the same numbers, ties included."""

import pytest
import torch

from exporter.rewrite import RewrittenProgram
from exporter.targets.torch_trt.prepare import prepare
from tests.support.compiled import REQUESTS, captured_family
from tests.support.families import IMAGE_SIZE, family

FLAT = torch.full((2, 3, IMAGE_SIZE, IMAGE_SIZE), 0.5)
"""Every patch is like every other: all scores tie, but for what the positions say."""


@pytest.mark.parametrize("given", [family("timm_vit").images(2), FLAT], ids=["images", "flat"])
def test_prepared_program_computes_the_same(program: RewrittenProgram, given: torch.Tensor) -> None:
    prepared = prepare(program.exported, 1 + len(program.merging_blocks), "cpu")

    results = prepared.module(check_guards=False)(given)

    for got, expected in zip(results, program(given), strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


def test_first_of_equal_values_wins() -> None:
    class Largest(torch.nn.Module):
        def forward(self, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            found = values.max(dim=-1)
            return found.values, found.indices

    values = torch.tensor([[1.0, 3.0, 3.0, 2.0], [5.0, 5.0, 5.0, 5.0], [0.0, -1.0, 0.0, 0.0]])
    prepared = prepare(torch.export.export(Largest(), (values,)), 2, "cpu")

    largest, places = prepared.module(check_guards=False)(values)

    assert largest.tolist() == [3.0, 5.0, 0.0]
    assert places.tolist() == [1, 0, 0]


def test_what_cuts_the_engine_is_gone_and_the_program_given_is_as_it_was(program: RewrittenProgram) -> None:
    before = [str(node.target) for node in program.exported.graph.nodes]

    prepared = prepare(program.exported, 1, "cpu")

    assert {"aten.max.dim", "aten.sort.stable"} <= set(before)
    assert not {"aten.max.dim", "aten.sort.stable"} & {str(node.target) for node in prepared.graph.nodes}
    assert [str(node.target) for node in program.exported.graph.nodes] == before
    assert len(prepared.graph_signature.user_outputs) == 1


def test_dense_program_is_left_in_one_piece() -> None:
    dense = captured_family("timm_vit").compile(type(REQUESTS["constant"])(r=0))

    prepared = prepare(dense.exported, 1, "cpu")

    attentions = [node for node in prepared.graph.nodes if "scaled_dot_product" in str(node.target)]
    assert len(attentions) == len(dense.merged)
