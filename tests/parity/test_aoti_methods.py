"""AOTInductor on methods that read the checkpoint, or reduce after a block, on two blocks of a ViT."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._inductor
from torch import Tensor, nn

from exporter.reduction import method
from exporter.rewrite import RewriteOptions, RewrittenProgram, rewrite
from exporter.schedule import ScheduleRequest
from exporter.targets import target
from exporter.targets.aoti.options import AotiOptions
from exporter.validation import TOLERANCES, run_eager, verify
from tests.parity.test_places import resampled
from tests.support.compiled import MIN_MARGIN, QUICKER, Captured, capture_model, max_abs_error
from tests.support.definitions.dynamicvit import Predictor, keep
from tests.support.families import TWO_BLOCKS, WIDTH, randomise
from tests.support.hooked import run_hooked
from tests.support.tiny_vit import request_of


@dataclass(frozen=True, kw_only=True)
class Case:
    """A method on the small model, and the definition's output."""

    method: str
    request: ScheduleRequest
    images: Tensor
    expected: Tensor
    learned: Mapping[int, tuple[Tensor, ...]] = field(default_factory=dict)

    def program(self) -> RewrittenProgram:
        options = RewriteOptions(
            method=method(self.method), proportional=False, batch=2, learned=self.learned
        )
        return rewrite(captured().program, captured().schedule(self.request, self.method), options)


@cache
def captured() -> Captured:
    return capture_model(TWO_BLOCKS.model())


def dynamicvit() -> Case:
    """25 patches enter block 1."""
    predictor = Predictor(WIDTH)
    randomise(predictor, 0)
    state = nn.ModuleList([predictor]).state_dict(prefix="score_predictor.")
    learned = method("dynamicvit").learned
    assert learned is not None
    stages = {1: tuple(each.clone() for each in learned.stages(state, [WIDTH])[0])}

    def change(tokens_NC: Tensor) -> Tensor:
        stay, margin = keep(tokens_NC, predictor.double(), kept=25, prefix=1)
        assert margin > MIN_MARGIN
        return stay

    return Case(
        method="dynamicvit",
        request=ScheduleRequest(r_per_layer=(0, 0), drop_per_layer=(0, 11)),
        images=TWO_BLOCKS.images(),
        expected=run_hooked(TWO_BLOCKS.model().double(), TWO_BLOCKS.images().double(), before={1: change}),
        learned=stages,
    )


def dct() -> Case:
    """31 patches leave block 0."""
    changes: dict[int, Any] = {0: partial(resampled, 31, 1, 1.0)}
    return Case(
        method="dct",
        request=ScheduleRequest(r_per_layer=(5, 0)),
        images=TWO_BLOCKS.images(),
        expected=run_hooked(TWO_BLOCKS.model().double(), TWO_BLOCKS.images().double(), after=changes),
    )


@pytest.mark.parametrize("made", [dynamicvit, dct])
def test_package_equals_the_definition(made: Callable[[], Case], tmp_path: Path) -> None:
    case = made()
    program = case.program()

    with torch._inductor.config.patch(QUICKER):
        artifact = target("aoti").emit(program, request_of(AotiOptions()), tmp_path)

    output = torch.from_numpy(artifact.runner(case.images.numpy())["logits"])
    assert max_abs_error(output, case.expected) < 1e-4
    inputs = run_eager(program, {"images": {"images": case.images.numpy()}})
    result = verify(program, artifact, inputs, TOLERANCES["fp32"])
    assert result.passed
    assert set(result.match_agreement) <= {1.0}
