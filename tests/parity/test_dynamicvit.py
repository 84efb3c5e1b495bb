"""DynamicViT in the rewritten program and in engines against its definition, hooked onto the model."""

from collections.abc import Sequence
from copy import deepcopy
from functools import cache, partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from exporter.reduction import method
from exporter.rewrite import RewriteOptions, RewrittenProgram, rewrite
from exporter.schedule import Schedule, ScheduleRequest
from exporter.validation import TOLERANCES, run_eager, verify
from exporter.validation.follow import follow_matches
from tests.support.compiled import captured_family, max_abs_error
from tests.support.definitions.dynamicvit import Predictor, keep
from tests.support.engines import ENGINES, Emit
from tests.support.families import WIDTH, family, randomise
from tests.support.hooked import run_hooked

DYNAMICVIT = method("dynamicvit")
REQUEST = ScheduleRequest(keep_rate=0.7, at=(1, 2, 3))
KEPT = {1: 25, 2: 17, 3: 12}
"""int(36 * 0.7), int(36 * 0.49), int(36 * 0.343)."""

FAMILIES = ["timm_vit", "torchvision_vit", "hf_dinov2_registers"]


@cache
def predictors() -> tuple[Predictor, ...]:
    made = tuple(Predictor(WIDTH) for _ in KEPT)
    for seed, predictor in enumerate(made):
        randomise(predictor, seed)
    return made


def state() -> dict[str, Tensor]:
    return nn.ModuleList(predictors()).state_dict(prefix="score_predictor.")


def schedule(name: str) -> Schedule:
    return captured_family(name).schedule(REQUEST, "dynamicvit")


def stages() -> dict[int, tuple[Tensor, ...]]:
    assert DYNAMICVIT.learned is not None
    return dict(zip(KEPT, DYNAMICVIT.learned.stages(state(), [WIDTH] * 3), strict=True))


@cache
def compiled(name: str) -> RewrittenProgram:
    options = RewriteOptions(method=DYNAMICVIT, proportional=False, batch=2, learned=stages())
    return rewrite(captured_family(name).program, schedule(name), options)


@cache
def expected(name: str) -> Tensor:
    margins: list[float] = []

    def change(predictor: nn.Module, kept: int, tokens_NC: Tensor) -> Tensor:
        stay, margin = keep(tokens_NC, predictor, kept=kept, prefix=family(name).prefix)
        margins.append(margin)
        return stay

    changes = {
        block: partial(change, deepcopy(predictor).double(), kept)
        for predictor, (block, kept) in zip(predictors(), KEPT.items(), strict=True)
    }
    output = run_hooked(family(name).model().double(), family(name).images().double(), before=changes)
    assert min(margins) > 1e-5
    return output


@pytest.mark.parametrize("name", FAMILIES)
def test_rewritten_program_equals_the_definition(name: str) -> None:
    assert schedule(name).tokens == (
        *[36 + family(name).prefix] * 2,
        *(k + family(name).prefix for k in KEPT.values()),
    )

    assert max_abs_error(compiled(name)(family(name).images())[0], expected(name)) < 1e-5


@pytest.mark.parametrize("emit", ENGINES)
def test_engine_drops_the_same_tokens(emit: Emit, tmp_path: Path) -> None:
    vit, program = family("timm_vit"), compiled("timm_vit")
    artifact = emit(program, tmp_path)
    inputs = {"images": {"images": vit.images().numpy()}}

    result = verify(program, artifact, run_eager(program, inputs), TOLERANCES["fp32"])

    assert result.passed
    assert set(result.match_agreement) == {1.0}
    output = torch.from_numpy(artifact.runner(vit.images().numpy())["logits"])
    assert max_abs_error(output, expected("timm_vit")) < 1e-4


def test_another_choice_is_followed_and_its_regret_measured() -> None:
    vit, program = family("timm_vit"), compiled("timm_vit")
    own_output, *records = program(vit.images())
    kept, r = 26, 11
    other = records[0].clone()
    other[:, kept - 1], other[:, kept + r - 1] = records[0][:, kept + r - 1], records[0][:, kept - 1]

    (own, *_), none = follow_matches(program, [vit.images()], records)
    (changed, *_), regret = follow_matches(program, [vit.images()], [other, *records[1:]])

    assert torch.equal(own, own_output)
    assert none < 1e-6
    assert regret > 0.1
    assert not torch.allclose(changed, own_output, atol=1e-4)


def vit_macs(tokens: Sequence[int], width: int, *, embedding: int, outputs: int) -> int:
    """Patch embedding, blocks of 12 N C^2 + 2 N^2 C, head."""
    blocks = sum(12 * count * width**2 + 2 * count**2 * width for count in tokens)
    return embedding * width + blocks + width * outputs


def predictor_macs(patches: int, width: int) -> int:
    """Layers of C x C, C x C / 2, C / 2 x C / 4 and C / 4 x 2."""
    return patches * (width**2 + width**2 // 2 + width**2 // 8 + width // 2)


def test_executed_multiply_accumulates_count_the_predictors_and_no_record() -> None:
    options = RewriteOptions(
        method=DYNAMICVIT,
        proportional=False,
        batch=2,
        learned=stages(),
        disabled=frozenset({"remove_dead_tokens"}),
    )

    program = rewrite(captured_family("timm_vit").program, schedule("timm_vit"), options)

    model = vit_macs([37, 26, 18, 13], WIDTH, embedding=36 * 48, outputs=10)
    assert program.executed_macs == model + sum(predictor_macs(patches, WIDTH) for patches in (36, 25, 17))


def test_formula_gives_the_published_figures_of_deit_s() -> None:
    """rho = 0.7 at blocks 3, 6 and 9."""
    model = vit_macs([197] * 3 + [138] * 3 + [97] * 3 + [68] * 3, 384, embedding=196 * 768, outputs=1000)
    predictors = sum(predictor_macs(patches, 384) for patches in (196, 137, 96))

    assert [round(macs / 1e9, 3) for macs in (model, predictors, model + predictors)] == [2.878, 0.103, 2.981]
