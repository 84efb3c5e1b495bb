"""Every method that is more than a merge by keys, through the compiler and in engines, against its definition.

ToMe and PiToMe have `test_rewrite_parity.py` and `test_onnx_parity.py`. The reference runs in fp64.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from exporter import reduction
from exporter.rewrite import RewrittenProgram
from exporter.schedule import Schedule, ScheduleRequest
from exporter.validation import TOLERANCES, run_eager, verify
from tests.support.compiled import (
    captured_family,
    max_abs_error,
    reduced_reference,
    reference_groups,
)
from tests.support.eager_merge import EagerRun
from tests.support.eager_state import Reduction
from tests.support.engines import ENGINES, Emit
from tests.support.families import family


@dataclass(frozen=True, kw_only=True)
class Case:
    """A method with its options, on a family of models with 36 patches and 4 blocks."""

    method: str
    family: str
    request: ScheduleRequest
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def schedule(self) -> Schedule:
        """What leaves each block."""
        return captured_family(self.family).schedule(self.request, self.method, **self.options)

    def program(self) -> RewrittenProgram:
        """Compiled."""
        return captured_family(self.family).compile(
            self.request, self.method, method_options=self.options, proportional=self.proportional
        )

    def reference(self) -> EagerRun:
        """The definition, in fp64."""
        schedule = self.schedule
        asked = Reduction(
            removed=schedule.removed,
            dropped=schedule.dropped,
            method=self.method,
            options=self.options,
            proportional=self.proportional,
        )
        return reduced_reference(family(self.family), asked)

    @property
    def proportional(self) -> bool:
        """As the method does it."""
        return reduction.method(self.method).proportional


EVIT = ScheduleRequest(keep_rate=0.7, at=(1, 2))
DROPPED = ScheduleRequest(r_per_layer=(4, 0, 21, 5))
"""Block 2 drops 21 of 33 tokens, more than could merge; the last block has no reader for what it drops."""
PAIRS = ScheduleRequest(r_per_layer=(2, 5, 0, 3), drop_per_layer=(0, 4, 3, 6))
EITHER = ScheduleRequest(r_per_layer=(5, 6, 0, 4))
BETWEEN = {"threshold": 2.5e-4}
"""Between the variances of the two images in some block, so that one drops and the other merges."""
FEW = ScheduleRequest(r_per_layer=(4, 6, 0, 5))
BY_TOKENS: dict[str, Any] = {"metric": "tokens"}

FAMILIES = ("timm_vit", "torchvision_vit", "hf_dinov2_registers")
"""A class token; a folded token axis; registers."""
CASES = [
    *(Case(method="evit", family=name, request=EVIT) for name in FAMILIES),
    *(
        Case(method="evit", family=name, request=DROPPED, options={"fused": False})
        for name in ("timm_vit", "timm_mean_pool", "hf_dinov2_registers")
    ),
    *(
        Case(method="diffrate", family=name, request=PAIRS)
        for name in ("timm_vit", "timm_mean_pool", "hf_dinov2_registers")
    ),
    *(Case(method="ppt", family=name, request=EITHER, options=BETWEEN) for name in FAMILIES),
    *(Case(method="tofu", family=name, request=FEW, options={"split": 2}) for name in FAMILIES),
    Case(method="tofu", family="timm_mean_pool", request=FEW, options={"split": 0, "weighted": False}),
    *(Case(method="random", family=name, request=DROPPED) for name in FAMILIES),
    *(Case(method="grid", family=name, request=DROPPED) for name in FAMILIES[1:]),
    *(
        Case(method="tome", family=name, request=FEW, options=BY_TOKENS | {"size_penalty": 0.1})
        for name in FAMILIES
    ),
    *(
        Case(method="pitome", family=name, request=FEW, options=BY_TOKENS | {"bipartite": "second-half"})
        for name in FAMILIES
    ),
    Case(method="pitome", family="timm_mean_pool", request=FEW, options={"energy": "paper"}),
]


NO_ENGINE_AGREES_ON = ("scatter", "index_put", "index_add", "nonzero", "masked_select", "sort.default")


def id_of(case: Case) -> str:
    return "-".join([case.method, *map(str, case.options.values()), case.family])


@pytest.mark.parametrize("case", CASES, ids=id_of)
def test_rewritten_program_equals_the_definition(case: Case) -> None:
    run, program, schedule = case.reference(), case.program(), case.schedule

    output, *records = program(family(case.family).images())

    assert max_abs_error(output, run.output) < 1e-5
    assert list(schedule.tokens) == run.tokens
    targets = {str(node.target) for node in program.exported.graph.nodes}
    assert not [each for each in targets if any(word in each for word in NO_ENGINE_AGREES_ON)]
    for block, match in program.matches(records).items():
        kept = [[group[0] for group in groups] for groups in reference_groups(run, block)]
        assert match.kept_BK.tolist() == kept


ONE_EACH = [case for case in CASES if case.family == "timm_vit"]


@pytest.mark.parametrize("emit", ENGINES)
@pytest.mark.parametrize("case", ONE_EACH, ids=id_of)
def test_engine_equals_the_definition_and_decides_alike(case: Case, emit: Emit, tmp_path: Path) -> None:
    program, images = case.program(), family(case.family).images()
    artifact = emit(program, tmp_path)

    result = verify(
        program, artifact, run_eager(program, {"images": {"images": images.numpy()}}), TOLERANCES["fp32"]
    )

    assert result.passed
    assert set(result.match_agreement) == {1.0}
    output = torch.from_numpy(artifact.runner(images.numpy())["logits"])
    assert max_abs_error(output, case.reference().output) < 1e-4
