"""Methods that reduce tokens after a block, in the rewritten program and in engines, against their definitions."""

from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import fft
from torch import Tensor, nn

from exporter.errors import UnsupportedGraphError
from exporter.reduction import method
from exporter.rewrite import RewriteOptions, RewrittenProgram, rewrite
from exporter.schedule import ScheduleRequest
from exporter.validation import TOLERANCES, run_eager, verify
from tests.support.compiled import capture_model, captured_family, max_abs_error
from tests.support.definitions import visionzip
from tests.support.eager_blocks import block_parts
from tests.support.eager_towers import find_tower
from tests.support.engines import ENGINES, Emit
from tests.support.families import WIDTH, family
from tests.support.hooked import run_hooked

FAMILIES = ["timm_vit", "torchvision_vit", "hf_dinov2_registers"]


@cache
def compiled(name: str, chosen: str, request: ScheduleRequest, **options: Any) -> RewrittenProgram:
    captured = captured_family(name)
    asked = RewriteOptions(method=method(chosen), method_options=options, proportional=False, batch=2)
    return rewrite(captured.program, captured.schedule(request, chosen), asked)


# DCT -----------------------------------------------------------------------------------------------------------------


def resampled(kept: int, prefix: int, factor: float, tokens_NC: Tensor) -> Tensor:
    """The patches of one image with their first coefficients only, by scipy."""
    spectrum_NC = fft.dct(tokens_NC[prefix:].numpy(), axis=0, norm="ortho")
    patches_KC = factor * torch.from_numpy(fft.idct(spectrum_NC[:kept], axis=0, norm="ortho"))
    return torch.cat((tokens_NC[:prefix], patches_KC))


DCT = ScheduleRequest(r_per_layer=(5, 0, 20, 0))
"""36 patches to 31 to 11."""


@pytest.mark.parametrize(
    ("name", "normalize"), [*((name, False) for name in FAMILIES), ("timm_mean_pool", True)]
)
def test_dct_equals_the_definition(name: str, normalize: bool) -> None:
    prefix, model = family(name).prefix, family(name).model().double()
    factors = [(31 / 36) ** 0.5, (11 / 31) ** 0.5] if normalize else [1.0, 1.0]
    changes = {0: partial(resampled, 31, prefix, factors[0]), 2: partial(resampled, 11, prefix, factors[1])}

    program = compiled(name, "dct", DCT, normalize=normalize)

    expected = run_hooked(model, family(name).images().double(), after=changes)
    results = program(family(name).images())
    assert len(results) == 1
    assert max_abs_error(results[0], expected) < 1e-5


@pytest.mark.parametrize("emit", ENGINES)
def test_engine_transforms_alike_and_nothing_is_decided(emit: Emit, tmp_path: Path) -> None:
    vit, program = family("timm_vit"), compiled("timm_vit", "dct", DCT)
    artifact = emit(program, tmp_path)
    inputs = {"images": {"images": vit.images().numpy()}}

    result = verify(program, artifact, run_eager(program, inputs), TOLERANCES["fp32"])

    assert result.passed
    assert result.match_agreement == ()
    assert artifact.probe is None


# VisionZip -----------------------------------------------------------------------------------------------------------

ZIP = ScheduleRequest(r_per_layer=(0, 0, 27, 0))
"""9 of 36 patches stay after block 2, of which 2 are contextual."""


def zipped(model: nn.Module, images: Tensor, prefix: int) -> tuple[Tensor, float]:
    """The model's output with its tokens zipped after block 2, and the smallest lead of any decision."""
    block: Any = find_tower(model).blocks[2]
    parts, entering, margins = block_parts(block), list[Tensor](), list[float]()
    hook = block.register_forward_pre_hook(lambda _, given: entering.extend(given[0]))

    def change(tokens_NC: Tensor) -> Tensor:
        q_HND, k_HND, _ = (part[0] for part in parts.qkv(entering.pop(0).unsqueeze(0)))
        row_HN = (q_HND[:, :1] @ k_HND.transpose(1, 2) * parts.scale).softmax(dim=-1)[:, 0]
        found = visionzip.compress(
            tokens_NC, row_HN.sum(dim=0).tolist(), k_HND.mean(dim=0), dominant=7, contextual=2, prefix=prefix
        )
        margins.append(found.margin)
        return found.tokens_KC

    output = run_hooked(model, images, after={2: change})
    hook.remove()
    return output, min(margins)


@pytest.mark.parametrize("name", FAMILIES)
def test_visionzip_equals_the_definition(name: str) -> None:
    model, images = family(name).model().double(), family(name).images()
    expected, margin = zipped(model, images.double(), family(name).prefix)
    assert margin > 1e-5

    program = compiled(name, "visionzip", ZIP, contextual=0.2)

    assert max_abs_error(program(images)[0], expected) < 1e-5


@pytest.mark.parametrize("emit", ENGINES)
def test_engine_zips_alike(emit: Emit, tmp_path: Path) -> None:
    vit, program = family("timm_vit"), compiled("timm_vit", "visionzip", ZIP, contextual=0.2)
    inputs = {"images": {"images": vit.images().numpy()}}

    result = verify(program, emit(program, tmp_path), run_eager(program, inputs), TOLERANCES["fp32"])

    assert result.passed
    assert result.match_agreement == (1.0,)


class Tokens(nn.Module):
    """The tokens of a model in place of its logits, as the reader of a tower wants them."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        tokens: Tensor = self.model.forward_features(images)
        return tokens


def test_reader_of_a_tower_gets_the_tokens_that_are_left() -> None:
    vit, captured = family("timm_vit"), capture_model(Tokens(family("timm_vit").model()).eval())
    schedule = captured.schedule(ZIP, "visionzip")
    options = RewriteOptions(
        method=method("visionzip"),
        method_options={"contextual": 0.2},
        proportional=False,
        batch=2,
        reduced_outputs=True,
    )
    expected, _ = zipped(Tokens(vit.model().double()), vit.images().double(), 1)

    program = rewrite(captured.program, schedule, options)

    assert expected.shape == (2, 10, WIDTH)
    assert max_abs_error(program(vit.images())[0], expected) < 1e-5
    with pytest.raises(UnsupportedGraphError, match="has one entry per token"):
        rewrite(captured.program, schedule, replace(options, reduced_outputs=False))
