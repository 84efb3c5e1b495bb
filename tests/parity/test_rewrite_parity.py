"""The rewritten program against the independent eager reference: the same numbers, the same matches.

The reference runs in fp64 and the program in fp32, so the tolerance is spent by the compiler alone. Outputs
are of order one.
"""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from exporter import reduction
from exporter.forms import Forms
from exporter.graph.nodes import calls
from exporter.graph.operators import aten
from exporter.rewrite import SWITCHES
from exporter.schedule import ScheduleRequest
from tests.support.compiled import (
    REQUESTS,
    capture_model,
    captured_family,
    compiled_groups,
    max_abs_error,
    reference,
    reference_groups,
)
from tests.support.families import FAMILY_PARAMS, Family, family
from tests.support.matching import Method

TOLERANCE = 1e-5
METHODS = ("tome", "pitome")
ONE_PER_HEAD = [
    pytest.param(family("timm_vit"), id="class token"),
    pytest.param(family("torchvision_vit"), id="folded token axis"),
    pytest.param(family("timm_qk_norm"), id="normalised queries"),
    pytest.param(family("timm_dinov2_registers"), id="registers and LayerScale"),
    pytest.param(family("open_clip_mean_pool"), id="mean"),
    pytest.param(family("hf_siglip"), id="attention pooling"),
    pytest.param(family("hf_dinov2_registers_classifier"), id="class token and mean"),
]
SWITCHABLE = ("timm_vit", "timm_qk_norm", "timm_siglip", "hf_clip", "hf_siglip")
WITH_SWITCHABLE_ATTENTION = [pytest.param(family(name), id=name) for name in SWITCHABLE]
TWO = [pytest.param(family(name), id=name) for name in ("timm_dinov2_registers", "open_clip_mean_pool")]
FOLDED = [pytest.param(family("torchvision_vit"), id="folded token axis")]


def each_of(families: Sequence[Any], *programs: tuple[str, str]) -> list[Any]:
    """Return a parameter for every family and every (method, name of a request)."""
    return [
        pytest.param(method, REQUESTS[request], *each.values, id=f"{method}-{request}-{each.id}")
        for each in families
        for method, request in programs
    ]


PROGRAMS = [
    *each_of(FAMILY_PARAMS, ("tome", "with zeros")),
    *each_of(ONE_PER_HEAD, ("tome", "constant"), ("pitome", "constant")),
    *each_of(TWO, ("tome", "capped"), ("tome", "decreasing"), ("pitome", "with zeros")),
]


@pytest.mark.parametrize(("method", "request_", "family"), PROGRAMS)
def test_rewritten_program_equals_the_reference(
    method: Method, request_: ScheduleRequest, family: Family
) -> None:
    captured = captured_family(family.name)
    schedule = captured.schedule(request_)
    run = reference(family, schedule.merged, method)

    program = captured.compile(request_, method)
    output, *records = program(family.images())

    assert max_abs_error(output, run.output) < TOLERANCE
    assert list(schedule.tokens) == run.tokens
    for record, block in zip(records, program.merging_blocks, strict=True):
        assert compiled_groups(record, program.merged[block]) == reference_groups(run, block)


KERNEL_FORMS = Forms(merge="kernels", metric="columns", stem="product", normalization="narrow")


@pytest.mark.parametrize(
    ("method", "family"),
    [
        *(pytest.param("tome", *each.values, id=f"tome-{each.id}") for each in ONE_PER_HEAD),
        pytest.param("pitome", family("timm_dinov2_registers"), id="pitome-registers"),
        pytest.param("evit", family("timm_vit"), id="evit-class token"),
    ],
)
def test_program_of_kernels_computes_the_definition_on_the_cpu(method: Method, family: Family) -> None:
    captured, request = captured_family(family.name), REQUESTS["constant"]
    schedule = captured.schedule(request, method)
    proportional = method != "evit"
    run = reference(family, schedule.removed, method, proportional=proportional)

    program = captured.compile(request, method, forms=KERNEL_FORMS, proportional=proportional)

    called = {
        str(node.target).split(".")[1] for node in program.eager.graph.nodes if "exporter" in str(node.target)
    }
    assert "add_norm" in called
    assert ("merge_add_norm" in called) == (reduction.method(method).combine is None)
    assert max_abs_error(program(family.images())[0], run.output) < TOLERANCE


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", [pytest.param(family("timm_siglip"), id="attention pooling")])
def test_without_proportional_attention_equals_the_reference(family: Family, method: Method) -> None:
    captured, request = captured_family(family.name), REQUESTS["constant"]
    run = reference(family, captured.schedule(request).merged, method, proportional=False)

    output, *_ = captured.compile(request, method, proportional=False)(family.images())

    assert max_abs_error(output, run.output) < TOLERANCE


@pytest.mark.parametrize("family", TWO)
def test_switching_all_passes_off_changes_no_number(family: Family) -> None:
    captured, request = captured_family(family.name), REQUESTS["constant"]
    run = reference(family, captured.schedule(request).merged, "tome")

    program = captured.compile(request, disabled=frozenset(SWITCHES))

    assert not set(SWITCHES) & {outcome.name for outcome in program.passes}
    assert max_abs_error(program(family.images())[0], run.output) < TOLERANCE


@pytest.mark.parametrize("switch", SWITCHES)
@pytest.mark.parametrize("family", TWO[:1])
def test_switching_one_pass_off_changes_no_number(family: Family, switch: str) -> None:
    captured, request = captured_family(family.name), REQUESTS["constant"]
    run = reference(family, captured.schedule(request).merged, "tome")

    program = captured.compile(request, disabled=frozenset({switch}))

    assert switch not in {outcome.name for outcome in program.passes}
    assert max_abs_error(program(family.images())[0], run.output) < TOLERANCE


@pytest.mark.parametrize("family", FAMILY_PARAMS)
def test_dense_program_equals_the_untouched_model(family: Family) -> None:
    program = captured_family(family.name).compile(ScheduleRequest(r=0))

    outputs = program(family.images())

    assert len(outputs) == program.outputs == 1
    assert program.merging_blocks == ()
    assert max_abs_error(outputs[0], family.model()(family.images())) < TOLERANCE


@pytest.mark.parametrize("family", [*TWO, *FOLDED])
def test_dynamic_batch_serves_every_batch(family: Family) -> None:
    captured, request = captured_family(family.name), REQUESTS["constant"]
    program = captured.compile(request, dynamic_batch=True)
    run = reference(family, captured.schedule(request).merged, "tome", batch=3)
    images = family.images(3)

    for batch in (1, 2, 3):
        output, *_ = program(images[:batch])
        assert max_abs_error(output, run.output[:batch]) < TOLERANCE


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("family", FOLDED)
def test_static_batch_other_than_the_captured_one(family: Family, batch: int) -> None:
    captured, request = captured_family(family.name), REQUESTS["constant"]
    run = reference(family, captured.schedule(request).merged, "tome", batch=batch)

    output, *_ = captured.compile(request, batch=batch)(family.images(batch))

    assert max_abs_error(output, run.output) < TOLERANCE


def without_fused_attention(model: nn.Module) -> nn.Module:
    """Make the model write its attention out as matmul, softmax, matmul."""
    for module in model.modules():
        if isinstance(module, transformers.PreTrainedModel):
            module.set_attn_implementation("eager")
        elif hasattr(module, "fused_attn"):
            module.fused_attn = False  # type: ignore[assignment]
    return model


@pytest.mark.parametrize("family", WITH_SWITCHABLE_ATTENTION)
def test_attention_written_out_equals_the_reference(family: Family) -> None:
    captured, request = capture_model(without_fused_attention(family.model())), REQUESTS["constant"]
    run = reference(family, captured.schedule(request).merged, "tome")

    program = captured.compile(request)

    rewrites = {outcome.name: outcome.rewrites for outcome in program.passes}
    assert rewrites["canonicalize_attention"] >= 4
    assert not calls(captured.program.graph_module.graph, aten.softmax.int)
    assert max_abs_error(program(family.images())[0], run.output) < TOLERANCE


WRONG = [
    pytest.param({"proportional": False}, id="sizes left out"),
    pytest.param({"name": "pitome"}, id="another method"),
    pytest.param({"request": REQUESTS["with zeros"]}, id="another schedule"),
]


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("family", TWO)
def test_comparison_rejects_a_wrong_program(family: Family, wrong: dict[str, Any]) -> None:
    captured, request = captured_family(family.name), REQUESTS["constant"]
    run = reference(family, captured.schedule(request).merged, "tome")

    output, *_ = captured.compile(**({"request": request} | wrong))(family.images())

    assert max_abs_error(output, run.output) > 100 * TOLERANCE


def test_comparison_rejects_what_is_not_a_number() -> None:
    nothing = torch.full((2, 3), torch.nan)

    assert max_abs_error(nothing, torch.zeros(2, 3)) == torch.inf
