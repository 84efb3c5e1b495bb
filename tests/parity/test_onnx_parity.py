"""The emitted ONNX model on ONNX Runtime against the independent eager reference."""

from pathlib import Path
from typing import Any

import pytest
import torch

from exporter.forms import Forms
from exporter.rewrite import RewrittenProgram
from exporter.targets import Artifact, target
from exporter.targets.onnx.options import OnnxOptions
from tests.support.compiled import (
    REQUESTS,
    captured_family,
    compiled_groups,
    max_abs_error,
    reference,
    reference_groups,
)
from tests.support.families import Family, family
from tests.support.matching import Method
from tests.support.tiny_vit import request_of

TOLERANCE = 1e-4
DEFAULT = Forms()


def emit(
    program: RewrittenProgram,
    family: Family,
    folder: Path,
    batch: int | str = 2,
    forms: Forms = DEFAULT,
) -> Artifact:
    request = request_of(OnnxOptions(), batch=batch, output=family.output_name, forms=forms)
    return target("onnx").emit(program, request, folder)


BY_PITOME = ("timm_vit", "torchvision_vit", "open_clip_mean_pool", "hf_siglip", "hf_clip")
BY_TOME = ("timm_no_class_token", "timm_qk_norm", "timm_deit_distilled", "hf_dinov2_registers_classifier")
CASES: list[Any] = [
    *(pytest.param(family(name), "tome", "constant", id=f"{name}-tome") for name in BY_TOME),
    *(pytest.param(family(name), "pitome", "with zeros", id=f"{name}-pitome") for name in BY_PITOME),
]
"""Every kind of stem, attention and head; the rewrite's own tests have all families by both methods."""


@pytest.mark.parametrize(("family", "method", "schedule"), CASES)
def test_onnx_runtime_equals_the_reference(
    family: Family, method: Method, schedule: str, tmp_path: Path
) -> None:
    captured, request = captured_family(family.name), REQUESTS[schedule]
    run = reference(family, captured.schedule(request).merged, method)
    program = captured.compile(request, method)
    artifact = emit(program, family, tmp_path)
    assert artifact.probe is not None

    shipped = artifact.runner(family.images().numpy())
    probed = artifact.probe({"images": family.images().numpy()})

    assert list(shipped) == [family.output_name]
    assert max_abs_error(torch.from_numpy(shipped[family.output_name]), run.output) < TOLERANCE
    assert max_abs_error(torch.from_numpy(probed[family.output_name]), run.output) < TOLERANCE
    for index, block in enumerate(program.merging_blocks):
        record = torch.from_numpy(probed[f"match_{index}"])
        assert compiled_groups(record, program.merged[block]) == reference_groups(run, block)


WHOLE_ATTENTION = [{"attention": "op"}, {"attention": "fused"}]
FORMS = [
    {"mask": "expanded"},
    {"mask": "folded", "selection": "one-hot", "ranking": "count"},
    *WHOLE_ATTENTION,
]
FORMS_OF = [
    *(pytest.param("timm_vit", form, id="-".join(form.values())) for form in FORMS),
    *(pytest.param("hf_vit", form, id=f"three projections-{form['attention']}") for form in WHOLE_ATTENTION),
]


@pytest.mark.parametrize(("name", "form"), FORMS_OF)
def test_every_form_equals_the_reference(name: str, form: dict[str, str], tmp_path: Path) -> None:
    captured, request, forms = captured_family(name), REQUESTS["constant"], DEFAULT.choose(form)
    run = reference(family(name), captured.schedule(request).merged, "tome")
    program = captured.compile(request, forms=forms)

    runner = emit(program, family(name), tmp_path, forms=forms).runner

    output = torch.from_numpy(runner(family(name).images().numpy())[family(name).output_name])
    assert max_abs_error(output, run.output) < TOLERANCE


@pytest.mark.parametrize("name", [pytest.param("torchvision_vit", id="folded token axis")])
def test_dynamic_batch_serves_every_batch(name: str, tmp_path: Path) -> None:
    captured, request = captured_family(name), REQUESTS["constant"]
    run = reference(family(name), captured.schedule(request).merged, "tome", batch=3)
    program = captured.compile(request, dynamic_batch=True)
    runner = emit(program, family(name), tmp_path, batch="batch").runner
    images = family(name).images(3)

    for batch in (1, 2, 3):
        output = torch.from_numpy(runner(images[:batch].numpy())[family(name).output_name])
        assert max_abs_error(output, run.output[:batch]) < TOLERANCE


def test_static_batch_pads_a_short_last_batch(tmp_path: Path) -> None:
    vit, captured, request = family("timm_vit"), captured_family("timm_vit"), REQUESTS["constant"]
    run = reference(vit, captured.schedule(request).merged, "tome", batch=3)
    runner = emit(captured.compile(request), vit, tmp_path).runner

    output = torch.from_numpy(runner(vit.images(3).numpy())[vit.output_name])

    assert max_abs_error(output, run.output) < TOLERANCE


def test_comparison_rejects_a_wrong_engine(tmp_path: Path) -> None:
    vit, captured, request = family("timm_vit"), captured_family("timm_vit"), REQUESTS["constant"]
    run = reference(vit, captured.schedule(request).merged, "tome")
    without_sizes = captured.compile(request, proportional=False)
    runner = emit(without_sizes, vit, tmp_path).runner

    output = torch.from_numpy(runner(vit.images().numpy())[vit.output_name])

    assert max_abs_error(output, run.output) > 100 * TOLERANCE
