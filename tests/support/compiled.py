"""The compile side of the families, captured once per test run, and the comparison with the eager reference.

The reference knows the blocks of every library; it is imported only where it is used, since tests on a GPU have no more
than what the package needs.
"""

from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from exporter import reduction
from exporter.anatomy import Anatomy, examine
from exporter.capture import EXAMPLE_BATCH, Program, capture
from exporter.rewrite import RewriteOptions, RewrittenProgram, rewrite
from exporter.schedule import Schedule, ScheduleRequest, plan
from tests.support.eager_state import COMPARED, Reduction
from tests.support.families import IMAGE_SIZE, SCHEDULES, Family, family
from tests.support.matching import Method

if TYPE_CHECKING:
    from tests.support.eager_merge import EagerRun

MIN_MARGIN = 1e-5
"""Decisions closer than this may turn in fp32; single precision moves a score by about 1e-6."""

REQUESTS = {
    "constant": ScheduleRequest(r=4),
    "decreasing": ScheduleRequest(r_per_layer=SCHEDULES["decreasing"]),
    "with zeros": ScheduleRequest(r_per_layer=SCHEDULES["with zeros"]),
    "capped": ScheduleRequest(r=40),
}
"""`SCHEDULES` as a user would ask for them."""

QUICKER = {"cpp.vec_isa_ok": True, "aot_inductor.compile_wrapper_opt_level": "O0"}
"""Of `torch._inductor.config`: the compiler is not tried out on each instruction set first, and does not tune the code
that calls the kernels."""

Groups = list[list[int]]


@dataclass(frozen=True, kw_only=True)
class Captured:
    """A captured model, what is known of it, and what was compiled from it so far."""

    program: Program
    anatomy: Anatomy
    compiled: dict[str, RewrittenProgram] = field(default_factory=dict, repr=False, compare=False)

    def schedule(self, request: ScheduleRequest, name: Method = "tome", **options: Any) -> Schedule:
        """Resolve a request for this model and a method; `options` are the method's."""
        return plan(request, reduction.method(name).limited(self.anatomy.geometry, options))

    def compile(self, request: ScheduleRequest, name: Method = "tome", **options: Any) -> RewrittenProgram:
        """Rewrite it for a schedule and a method, once; `options` are those of `RewriteOptions`."""
        defaults: dict[str, Any] = {"batch": EXAMPLE_BATCH, "method_options": COMPARED.get(name, {})}
        settings = defaults | options
        schedule = self.schedule(request, name, **settings.get("method_options", {}))
        key = repr((schedule, name, sorted(settings.items())))
        if key not in self.compiled:
            asked = RewriteOptions(method=reduction.method(name), **settings)
            self.compiled[key] = rewrite(self.program, schedule, asked)
        return self.compiled[key]


def capture_model(model: nn.Module, image_size: int = IMAGE_SIZE) -> Captured:
    """Capture a model of square images and examine its graph."""
    program = capture(model, torch.zeros(EXAMPLE_BATCH, 3, image_size, image_size))
    return Captured(program=program, anatomy=examine(program.graph_module))


@cache
def captured_family(name: str) -> Captured:
    """Capture the model of a family, once."""
    return capture_model(family(name).model())


def reference(
    family: Family, merged: tuple[int, ...], name: Method, *, proportional: bool = True, batch: int = 2
) -> "EagerRun":
    """Run the eager reference in fp64, so that rounding is the compiled program's alone.

    Raises:
        NearTieError: some decision is too close for a comparison with fp32.
    """
    asked = Reduction(removed=merged, method=name, options=COMPARED.get(name, {}), proportional=proportional)
    return reduced_reference(family, asked, batch)


def reduced_reference(family: Family, asked: Reduction, batch: int = 2) -> "EagerRun":
    """Run the eager reference of any method in fp64.

    Raises:
        NearTieError: some decision is too close for a comparison with fp32.
    """
    from tests.support.eager_merge import NearTieError, trace_eager_reduced

    model, images = family.model().double(), family.images(batch).double()
    run = trace_eager_reduced(model, images, asked)
    if run.margin < MIN_MARGIN:
        raise NearTieError(f"{family.name}: the closest decision has a margin of {run.margin:.2e}")
    return run


def max_abs_error(actual: Tensor, expected: Tensor) -> float:
    """Return the largest difference of two tensors of one shape; a NaN anywhere is infinitely wrong."""
    assert actual.shape == expected.shape, f"{tuple(actual.shape)} is not {tuple(expected.shape)}"
    error = (actual.double() - expected.double()).abs().nan_to_num(nan=torch.inf)
    return float(error.max())


def reference_groups(run: "EagerRun", block: int) -> list[Groups]:
    """Return what a block of the reference made of its tokens, per image, in output order."""
    return [ordered(matching.groups) for matching in run.matchings[block]]


def compiled_groups(record: Tensor, merged: int) -> list[Groups]:
    """Return the match that a compiled block recorded, (B, K + R + R): kept tokens, sources, their places in K."""
    kept_BK, source_BR, target_BR = record.split([record.shape[1] - 2 * merged, merged, merged], dim=1)
    images: list[Groups] = []
    for kept, sources, targets in zip(kept_BK.tolist(), source_BR.tolist(), target_BR.tolist(), strict=True):
        groups = [[token] for token in kept]
        for source, target in zip(sources, targets, strict=True):
            groups[target].append(source)
        images.append(ordered(groups))
    return images


def ordered(groups: Groups) -> Groups:
    """Return groups with their destination in front and their sources ascending; the order of groups stays."""
    return [[group[0], *sorted(group[1:])] for group in groups]
