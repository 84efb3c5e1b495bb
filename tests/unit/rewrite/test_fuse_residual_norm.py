"""Which sums and norms become one kernel."""

import pytest
import torch
from torch import Tensor, nn

from exporter.anatomy import examine
from exporter.capture import Program, capture
from exporter.forms import Forms
from exporter.graph.nodes import calls
from exporter.graph.operators import aten
from exporter.kernels.residual import merge_add_norm_by_kernel, merge_by_kernel
from exporter.reduction import method
from exporter.rewrite import RewriteOptions, rewrite
from exporter.rewrite.annotate_blocks import annotations
from exporter.rewrite.fuse_residual_norm import FuseResidualNorm
from exporter.rewrite.role import Role, role_of
from exporter.schedule import Schedule, ScheduleRequest, plan
from tests.unit.rewrite.small_models import Block, SmallVit, images, random, rewritten, seeded

OPTIONS = RewriteOptions(method=method("tome"), batch=2, forms=Forms(merge="kernels"))


def captured(*merged: int) -> tuple[Program, Schedule]:
    program = capture(seeded(SmallVit(*(Block() for _ in merged), head="mean")), images())
    return program, plan(ScheduleRequest(r_per_layer=merged), examine(program.graph_module).geometry)


def test_every_sum_of_the_stream_is_fused_with_the_norm_after_it() -> None:
    graph = rewrite(*captured(4, 0), OPTIONS).merging.graph

    (merge,) = calls(graph, merge_add_norm_by_kernel)
    assert role_of(merge) == Role("merge", 0)
    assert not calls(graph, merge_by_kernel)
    assert len(calls(graph, torch.ops.exporter.add_norm.default)) == 3
    assert (
        len(calls(graph, aten.layer_norm.default)) == 1
    )  # of the first block: positions are added by broadcasting
    assert annotations(graph)[merge.name] == "block_00"


def test_fused_sums_of_dense_blocks_keep_their_role() -> None:
    graph = rewrite(*captured(4, 0), OPTIONS).merging.graph

    roles = [role for node in graph.nodes if (role := role_of(node))]
    assert roles == [Role("match", 0), Role("merge", 0), Role("point", 1)]


class Sum(nn.Module):
    """(x + y) and its norm, in spellings that are no plain residual."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.norm = nn.LayerNorm(6, elementwise_affine=kind != "no weight", bias=kind != "no bias")
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        other = self.second(x)[:, :1] if self.kind == "broadcast" else self.second(x)
        normed: Tensor = self.norm(self.first(x) + other)
        return normed


@pytest.mark.parametrize("kind", ["broadcast", "no weight", "no bias"])
def test_other_sums_are_left_alone(kind: str) -> None:
    pair = rewritten(seeded(Sum(kind)), random(2, 4, 6), FuseResidualNorm())

    assert pair.outcome.rewrites == 0
    assert len(calls(pair.after.graph, aten.layer_norm.default)) == 1


def test_a_plain_sum_is_fused() -> None:
    pair = rewritten(seeded(Sum("plain")), random(2, 4, 6), FuseResidualNorm())

    assert pair.outcome.rewrites == 1
    pair.assert_same_numbers(random(2, 4, 6, seed=3), atol=1e-6)
