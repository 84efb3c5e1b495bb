"""What is found in the graph of every family: blocks, merge points, prefix tokens, head, work."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor, fx
from torch.backends import mha
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from exporter.anatomy.demand import token_demand
from exporter.graph.operators import aten
from exporter.rewrite import SWITCHES
from exporter.schedule import ScheduleRequest
from tests.support.compiled import Captured, captured_family, max_abs_error
from tests.support.eager_blocks import attention, block_parts
from tests.support.eager_towers import find_tower
from tests.support.families import BLOCKS, FAMILY_PARAMS, HEADS, PATCHES, WIDTH, Family, family

HEADS_BY_POOLING = {
    "token": "prefix tokens",
    "mean": "mean over tokens",
    "attention": "attention pooling",
    "token and mean": "prefix tokens + mean over tokens",
}


class ValueRecorder(fx.Interpreter):
    """Runs a graph and remembers every value."""

    def run_node(self, n: fx.Node) -> object:
        """Run one node."""
        values: dict[fx.Node, object] = self.__dict__.setdefault("values", {})
        values[n] = super().run_node(n)
        return values[n]


def after_attention(family: Family) -> list[Tensor]:
    """Return x + attention(x) of every block, (B, N, C), by hooks on the untouched model."""
    model, found = family.model(), []

    def record(block: torch.nn.Module, arguments: tuple[Tensor, ...]) -> None:
        x_BNC, parts = arguments[0], block_parts(block)
        attended = attention(*parts.qkv(x_BNC), parts.scale, torch.zeros(1, 1, 1, x_BNC.shape[1]))
        found.append(x_BNC + parts.project(attended.transpose(1, 2).flatten(2)))

    for block in find_tower(model).blocks:
        block.register_forward_pre_hook(record)
    model(family.images())
    return found


@pytest.mark.parametrize("family", FAMILY_PARAMS)
def test_merge_points_are_the_sums_between_attention_and_mlp(family: Family) -> None:
    captured = captured_family(family.name)
    recorder = ValueRecorder(captured.program.graph_module)
    recorder.run(family.images())

    points = [block.merge_point for block in captured.anatomy.blocks]

    assert [point.target for point in points] == [aten.add.Tensor] * BLOCKS
    for point, expected in zip(points, after_attention(family), strict=True):
        layout = captured.anatomy.layouts[point]
        value = recorder.__dict__["values"][point].movedim(layout.axis, 1)  # type: ignore[union-attr]
        assert max_abs_error(value, expected) < 1e-5


@pytest.mark.parametrize("family", FAMILY_PARAMS)
def test_anatomy_of_every_family(family: Family) -> None:
    anatomy = captured_family(family.name).anatomy

    assert (anatomy.prefix, anatomy.tokens) == (family.prefix, family.prefix + PATCHES)
    assert [(block.heads, block.channels) for block in anatomy.blocks] == [(HEADS, WIDTH)] * BLOCKS
    assert anatomy.head == HEADS_BY_POOLING[family.pooling]
    assert anatomy.refusals == ()


@pytest.mark.parametrize(
    ("name", "last"),
    [
        pytest.param("timm_vit", 1, id="class token"),
        pytest.param("torchvision_vit", 1, id="class token, folded token axis"),
        pytest.param("timm_deit_distilled", 2, id="class and distillation token"),
        pytest.param("timm_dinov2_registers", 1, id="class token, not the registers"),
        pytest.param("timm_mean_pool", None, id="mean"),
        pytest.param("timm_siglip", None, id="attention pooling"),
        pytest.param("hf_dinov2_registers_classifier", None, id="class token and mean"),
    ],
)
def test_last_block_is_needed_for_the_tokens_that_the_head_reads(name: str, last: int | None) -> None:
    captured = captured_family(name)
    demand = token_demand(captured.program.graph_module.graph, captured.anatomy.layouts)

    needed = [demand[block.merge_point] for block in captured.anatomy.blocks]

    assert needed == [None] * (BLOCKS - 1) + [last]


def counted_macs(family: Family) -> int:
    """Count the multiply-accumulates of one image as PyTorch's own counter does."""
    fastpath = mha.get_fastpath_enabled()
    mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            family.model()(family.images(1))
    finally:
        mha.set_fastpath_enabled(fastpath)
    macs: int = counter.get_total_flops() // 2
    return macs


def dense_macs(captured: Captured) -> int:
    program = captured.compile(ScheduleRequest(r=0), batch=1, disabled=frozenset(SWITCHES))
    return program.executed_macs


@pytest.mark.parametrize("family", FAMILY_PARAMS)
def test_dense_work_equals_an_independent_count(family: Family) -> None:
    captured = captured_family(family.name)
    constant_query = WIDTH * WIDTH if family.pooling == "attention" else 0

    expected = counted_macs(family) - constant_query

    assert dense_macs(captured) == expected
    assert captured.anatomy.workload.macs((family.tokens,) * (BLOCKS + 1)) == expected


@pytest.mark.parametrize("request_", [ScheduleRequest(r=4), ScheduleRequest(r_per_layer=(0, 5, 0, 7))])
@pytest.mark.parametrize("name", ["timm_vit", "torchvision_vit", "hf_vit", "open_clip_vit"])
def test_reduced_work_equals_the_formula_of_the_literature(name: str, request_: ScheduleRequest) -> None:
    captured = captured_family(name)
    tokens = captured.schedule(request_).tokens

    blocks = sum(
        4 * n * WIDTH**2 + 2 * n**2 * WIDTH + 2 * 4 * left * WIDTH**2 for n, left in pairwise(tokens)
    )
    patch_embedding, head = PATCHES * WIDTH * 3 * 4 * 4, WIDTH * 10

    assert captured.anatomy.workload.macs(tokens) == patch_embedding + blocks + head


def test_executed_work_leaves_out_dead_tokens() -> None:
    captured = captured_family("timm_vit")
    others, tokens = PATCHES, family("timm_vit").tokens

    program = captured.compile(ScheduleRequest(r=0), batch=1)

    query_projection_mlp = others * (1 + 1 + 8) * WIDTH**2
    attention_rows = others * tokens * 2 * WIDTH
    assert program.executed_macs == dense_macs(captured) - query_projection_mlp - attention_rows
