"""Every value gets the type that it is computed in, by what its operator does."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from exporter.forms import Forms
from exporter.graph.nodes import calls, output_node
from exporter.graph.operators import aten, sdpa
from exporter.rewrite.convert_precision import NARROW, ConvertPrecision
from exporter.schedule import ScheduleRequest
from exporter.validation import rounding_errors
from tests.support.compiled import captured_family
from tests.support.families import family
from tests.unit.rewrite.small_models import random, rewritten, seeded

FP16 = ConvertPrecision(precision="fp16")
BF16 = ConvertPrecision(precision="bf16")
WIDTH = 8


class SquaredNorm(nn.Module):
    """RMSNorm written out, over activations whose squares leave the range of fp16."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, WIDTH)
        self.last = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = 1000 * self.first(x)
        scale: Tensor = (x.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt()
        y: Tensor = self.last(x * scale)
        return y


class Block(nn.Module):
    """A pre-norm block with attention, a constant added, and a mean over tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.projections = nn.Linear(WIDTH, 3 * WIDTH)
        self.position = nn.Parameter(torch.zeros(1, 4, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.position
        query, key, value = self.projections(self.norm(x)).unsqueeze(1).chunk(3, dim=-1)
        attended = functional.scaled_dot_product_attention(query, key, value).squeeze(1)
        y: Tensor = (x + attended).mean(1)
        return y


def dtypes(pair_graph: torch.fx.Graph, *targets: object) -> set[torch.dtype]:
    return {node.meta["val"].dtype for node in calls(pair_graph, *targets)}


@pytest.mark.parametrize(
    ("graph_pass", "narrow"),
    [pytest.param(FP16, torch.float16, id="fp16"), pytest.param(BF16, torch.bfloat16, id="bf16")],
)
def test_products_are_narrow_and_norms_and_means_are_wide(
    graph_pass: ConvertPrecision, narrow: torch.dtype
) -> None:
    pair = rewritten(seeded(Block()), random(2, 4, WIDTH), graph_pass)
    graph = pair.after.graph

    assert dtypes(graph, aten.linear.default, sdpa) == {narrow}
    assert dtypes(graph, aten.layer_norm.default, aten.mean.dim) == {torch.float32}
    assert pair.outcome.modified
    assert pair.after(random(2, 4, WIDTH))[0].dtype == torch.float32


class AfterProduct(nn.Module):
    """An operator whose only operand is what a product gave, and so is narrow."""

    def __init__(self, operator: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, WIDTH)
        self.operator = operator

    def forward(self, x: Tensor) -> Tensor:
        return self.operator(self.first(x))


def layer_norm(x: Tensor) -> Tensor:
    return functional.layer_norm(x, (WIDTH,))


OPERATORS: list[Any] = [
    (layer_norm, aten.layer_norm.default, torch.float16),
    (lambda x: x.softmax(-1), aten.softmax.int, torch.float16),
    (lambda x: x.mean(1), aten.mean.dim, torch.float32),
    (lambda x: x.sum(1), aten.sum.dim_IntList, torch.float32),
    (lambda x: x.pow(2), aten.pow.Tensor_Scalar, torch.float32),
    (lambda x: x.exp(), aten.exp.default, torch.float32),
    (lambda x: x.rsqrt(), aten.rsqrt.default, torch.float32),
    (lambda x: torch.linalg.vector_norm(x, dim=-1), aten.linalg_vector_norm.default, torch.float32),
]


@pytest.mark.parametrize(
    ("operator", "target", "given"), [pytest.param(*each, id=str(each[1])) for each in OPERATORS]
)
def test_operand_of_16_bits_is_widened_before_it_is_squared_or_summed(
    operator: Callable[[Tensor], Tensor], target: object, given: torch.dtype
) -> None:
    pair = rewritten(seeded(AfterProduct(operator)), random(2, 4, WIDTH), FP16)

    (node,) = calls(pair.after.graph, target)
    assert {each.meta["val"].dtype for each in node.all_input_nodes} == {torch.float32}
    assert node.meta["val"].dtype == torch.float32
    (reader,) = node.users  # a cast back, or the output
    assert (reader.op == "output") == (given == torch.float32)
    assert reader.op == "output" or reader.meta["val"].dtype == given


def test_weights_of_products_are_stored_narrow_and_those_of_norms_wide() -> None:
    pair = rewritten(seeded(Block()), random(2, 4, WIDTH), FP16)

    read = {
        str(node.target): node.meta["val"].dtype for node in pair.after.graph.nodes if node.op == "get_attr"
    }
    assert read.pop("norm.weight") == read.pop("norm.bias") == torch.float32
    assert {name for name, dtype in read.items() if dtype != torch.float16} == {"position"}


def test_squares_beyond_the_range_of_fp16_do_not_overflow() -> None:
    model, images = seeded(SquaredNorm()), random(2, 4, WIDTH)
    expected = model(images)
    naive = seeded(SquaredNorm()).half()(images.half())
    assert not torch.allclose(naive.float(), expected, atol=0.1)  # the model does collapse in plain fp16

    pair = rewritten(model, images, FP16)

    torch.testing.assert_close(pair.after(images)[0], expected, atol=1e-2, rtol=1e-2)


def test_values_that_no_image_reaches_are_left_alone() -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.ones(WIDTH))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.table.exp()

    pair = rewritten(seeded(Constant()), random(2, WIDTH), FP16)

    assert not pair.outcome.modified
    assert dtypes(pair.after.graph, aten.exp.default, aten.mul.Tensor) == {torch.float32}


@pytest.mark.parametrize("name", ["timm_qk_norm", "timm_dinov2_registers"])
def test_every_kind_of_model_is_typed_and_stays_close(name: str) -> None:
    images = family(name).images(2)
    typed = captured_family(name).compile(ScheduleRequest(r=0), precision="fp16")

    assert functional.cosine_similarity(typed(images)[0], family(name).model()(images)).min() > 0.9999


@pytest.mark.parametrize("name", ["timm_mean_pool", "open_clip_mean_pool", "hf_siglip"])
def test_means_and_attention_pooling_over_merged_tokens_are_weighed_in_fp32(name: str) -> None:
    captured, images = captured_family(name), family(name).images(2)
    wide, typed = (captured.compile(ScheduleRequest(r=4), precision=each) for each in ("fp32", "fp16"))

    errors = rounding_errors(wide, typed, [images])

    assert max(errors.values()) < 0.01


@pytest.mark.parametrize(
    ("name", "precision", "cosine"),
    [
        ("timm_vit", "fp16", 0.99999),
        ("hf_clip", "fp16", 0.99999),
        ("torchvision_vit", "fp16", 0.99999),
        ("timm_vit", "bf16", 0.9995),
    ],
)
def test_typed_program_stays_close_to_the_wide_one_along_its_matches(
    name: str, precision: str, cosine: float
) -> None:
    captured, images = captured_family(name), family(name).images(2)
    request = ScheduleRequest(r=4)
    wide, typed = captured.compile(request), captured.compile(request, precision=precision)

    errors = rounding_errors(wide, typed, [images])

    assert list(errors)[:3] == [0, 1, 2]
    assert all(0 < error < (1 - cosine**2) ** 0.5 for error in errors.values())
    assert {value.dtype for value in typed(images)[: typed.outputs]} == {torch.float32}


def test_rounding_error_is_zero_for_the_same_program_and_shows_a_damaged_one() -> None:
    captured, images = captured_family("timm_vit"), family("timm_vit").images(2)
    program = captured.compile(ScheduleRequest(r=4))
    typed = captured.compile(ScheduleRequest(r=4), precision="bf16")
    damaged = replace(typed, merging=deepcopy(typed.merging))
    max(damaged.merging.buffers(), key=torch.Tensor.numel).zero_()

    assert set(rounding_errors(program, program, [images]).values()) == {0.0}
    assert max(rounding_errors(program, damaged, [images]).values()) > 0.1


def test_output_nodes_are_wide_where_a_product_ends_the_graph() -> None:
    pair = rewritten(seeded(nn.Linear(WIDTH, 3)), random(2, WIDTH), BF16)

    assert [value.meta["val"].dtype for value in output_node(pair.after.graph).all_input_nodes] == [
        torch.float32
    ]


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_narrow_normalisations_stand_between_no_casts(precision: Any) -> None:
    layers = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH))
    model, inputs = seeded(layers), random(2, 4, WIDTH)
    wide, narrow = (
        rewritten(model, inputs, ConvertPrecision(precision=precision, normalization=normalization)).after
        for normalization in ("fp32", "narrow")
    )

    (norm,) = calls(narrow.graph, aten.layer_norm.default)
    assert {value.meta["val"].dtype for value in (norm, *norm.all_input_nodes)} == {NARROW[precision]}
    casts = [len(calls(each.graph, aten.to.dtype)) for each in (wide, narrow)]
    assert casts[0] - casts[1] == 2
    torch.testing.assert_close(narrow(inputs)[0], wide(inputs)[0], atol=3e-2, rtol=3e-2)


def test_rounding_of_a_program_of_kernels_is_recorded_for_every_block() -> None:
    captured, request = captured_family("timm_vit"), ScheduleRequest(r_per_layer=(4, 0, 4, 0))
    kernels = Forms(merge="kernels", metric="columns", normalization="narrow")

    typed = captured.compile(request, precision="fp16", forms=kernels)
    errors = rounding_errors(captured.compile(request), typed, [family("timm_vit").images()])

    plain = rounding_errors(
        captured.compile(request), captured.compile(request, precision="fp16"), [family("timm_vit").images()]
    )
    assert errors.keys() == plain.keys()
    assert all(0 < error < 2 * plain[block] for block, error in errors.items())
