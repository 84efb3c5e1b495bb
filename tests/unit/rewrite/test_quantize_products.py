"""Products of blocks in fp8, with scales from calibration images."""

from dataclasses import replace

import pytest
import torch

from exporter.anatomy import examine
from exporter.capture import Program, capture
from exporter.errors import UnsupportedGraphError
from exporter.forms import Forms
from exporter.graph.fp8 import FP8, LARGEST, emulated_linear_fp8, linear_fp8, quantize_fp8
from exporter.graph.nodes import calls, operand
from exporter.graph.operators import aten
from exporter.kernels.attention import attend_with_kernel
from exporter.kernels.residual import merge_add_norm_by_kernel
from exporter.reduction import method
from exporter.rewrite import RewriteOptions, rewrite
from exporter.schedule import Schedule, ScheduleRequest, plan
from tests.unit.rewrite.small_models import Block, SmallVit, images, random, seeded

KERNELS = Forms(merge="kernels", metric="columns", normalization="narrow", product="scaled")
OPTIONS = RewriteOptions(method=method("tome"), batch=2, precision="fp8", calibration=(random(5, 3, 8, 8),))


def nearest_e4m3(value: float) -> float:
    """The nearest number with 3 bits of mantissa and an exponent from -6 to 8, ties to even; written out."""
    if value == 0:
        return 0.0
    exponent = max(torch.frexp(torch.tensor(abs(value), dtype=torch.float64))[1].item() - 1, -6)
    unit = 2.0 ** (exponent - 3)
    return max(-LARGEST, min(LARGEST, round(value / unit) * unit))


def captured(*merged: int) -> tuple[Program, Schedule]:
    program = capture(seeded(SmallVit(*(Block() for _ in merged))), images())
    return program, plan(ScheduleRequest(r_per_layer=merged), examine(program.graph_module).geometry)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_values_become_the_nearest_numbers_in_units_of_the_scale(dtype: torch.dtype) -> None:
    values = torch.cat((random(2000), torch.tensor([0.0, 0.001, 100.0, -1000.0]))).to(dtype)
    scale = 0.0123

    quantized = quantize_fp8(values, scale)

    assert quantized.dtype == FP8
    assert quantized.float().tolist() == [nearest_e4m3(value / scale) for value in values.tolist()]


@pytest.mark.parametrize("bias", [True, False])
def test_both_forms_of_a_product_are_a_linear_layer_of_the_same_numbers(bias: bool) -> None:
    rows, weight = quantize_fp8(random(2, 5, 32), 0.01), quantize_fp8(random(48, 32, seed=1), 0.02)
    shift = random(48, seed=2).half() if bias else None
    scales = torch.tensor(0.01), torch.tensor(0.02)

    expected = rows.double() * 0.01 @ (weight.double() * 0.02).T + (0 if shift is None else shift.double())

    for form in (linear_fp8, emulated_linear_fp8):
        product = form(rows, weight, *scales, shift)
        assert product.dtype == torch.float16
        torch.testing.assert_close(product.double(), expected, atol=2e-3, rtol=2e-3)


def test_every_layer_of_a_block_is_quantised_and_stem_and_head_are_not() -> None:
    program, schedule = captured(4, 0)

    rewritten = rewrite(program, schedule, OPTIONS)

    graph = rewritten.merging.graph
    assert (
        len(calls(graph, emulated_linear_fp8)) == len(rewritten.scales) == 8 + 1
    )  # the last query is its own layer
    assert {operand(each, 0).target for each in calls(graph, emulated_linear_fp8)} == {quantize_fp8}
    assert len(calls(graph, aten.linear.default)) == 1  # the head
    dense = rewrite(program, schedule, replace(OPTIONS, precision="fp32", calibration=None))
    output, expected = rewritten(images())[0], dense(images())[0]
    assert 0 < (output - expected).norm() / expected.norm() < 0.1


def test_scales_make_the_largest_value_seen_the_largest_number() -> None:
    program, schedule = captured(0, 0)
    assert OPTIONS.calibration is not None
    seen: dict[str, float] = {}

    class Hooked(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> object:
            if n.target is aten.linear.default:
                rows, weight = self.fetch_args_kwargs_from_env(n)[0][0], str(operand(n, 1).target)
                seen[weight] = max(seen.get(weight, 0.0), float(rows.abs().max()))
            return super().run_node(n)

    rewritten = rewrite(program, schedule, OPTIONS)
    with torch.no_grad():
        Hooked(program.graph_module).run(*OPTIONS.calibration)

    first = {weight for weight in seen if "blocks_0_mlp" in weight.replace(".", "_")}
    assert len(first) == 2
    for weight in first:  # of the last block only the class token is computed
        assert rewritten.scales[f"{weight.replace('.', '_')}_float16"] == pytest.approx(
            seen[weight] / LARGEST
        )


def test_a_graph_of_a_fixed_batch_is_calibrated_in_such_batches() -> None:
    free, schedule = captured(0, 0)
    fixed = capture(torch.export.export(seeded(SmallVit(Block(), Block())).eval(), (images(),)), images())

    assert fixed.fixed_batch == 2
    assert rewrite(fixed, schedule, OPTIONS).scales == pytest.approx(rewrite(free, schedule, OPTIONS).scales)


def test_kernels_give_e4m3_themselves() -> None:
    graph = rewrite(*captured(4, 4, 0), replace(OPTIONS, forms=KERNELS)).merging.graph

    producers = [operand(operand(each, 0), 0).target for each in calls(graph, linear_fp8)]
    assert producers.count(merge_add_norm_by_kernel) == 2
    assert (
        producers.count(torch.ops.exporter.add_norm.default) == 2
    )  # not the first norm of the last block: its query is cut out of it
    attention = calls(graph, attend_with_kernel)
    assert {each.kwargs.get("dtype") for each in attention} == {FP8}


def test_program_of_kernels_computes_what_the_plain_one_does() -> None:
    program, schedule = captured(4, 4, 0)

    plain, fused = (rewrite(program, schedule, replace(OPTIONS, forms=forms)) for forms in (Forms(), KERNELS))

    output, expected = fused(images())[0], plain(images())[0]
    assert (output - expected).norm() / expected.norm() < 0.05


def test_a_model_without_such_layers_is_refused() -> None:
    program, schedule = captured(0, 0)
    zeros = torch.zeros_like(random(5, 3, 8, 8)) * 0
    for parameter in program.graph_module.parameters():
        parameter.data.zero_()

    with pytest.raises(UnsupportedGraphError, match="precision fp8 is for linear layers in blocks"):
        rewrite(program, schedule, replace(OPTIONS, calibration=(zeros,)))
