"""The parity gate: whether an artifact may be shipped, and if not, what would help.

In: what eager PyTorch computes, or a `ParityResult`. Out: nothing, or a `ParityError` whose advice fits the cause.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from exporter.errors import ParityError
from exporter.forms import Precision
from exporter.rewrite import RewrittenProgram
from exporter.rewrite.annotate_blocks import HEAD, annotations, part_name
from exporter.validation.follow import Recorder
from exporter.validation.parity import ParityResult
from exporter.validation.reference import Reference


def require_finite(program: RewrittenProgram, references: Mapping[str, Reference]) -> None:
    """Raise where the model itself, in fp32, gives values that are not finite: no engine can be held against them.

    Args:
        program: that the references are of; its weights are finite.
        references: by input.

    Raises:
        ParityError: naming the input, and the part of the model where it happens first.
    """
    for name, reference in references.items():
        if all(bool(torch.isfinite(output).all()) for output in reference.outputs):
            continue
        raise ParityError(
            f"parity: the model itself gives values that are not finite for {name} in eager PyTorch in fp32, first in "
            f"{_first_overflow(program, reference)}; its weights are finite, so a value grows beyond fp32 "
            "there: look at that part, and at mean and std of the preprocessing"
        )


def require(result: ParityResult, target: str, precision: Precision) -> None:
    """Raise unless the gate was met.

    Args:
        result: of the comparison.
        target: whose artifact it is.
        precision: that the artifact computes in.

    Raises:
        ParityError: naming each number that fell short, and what would help.
    """
    if not result.passed:
        raise ParityError(
            f"parity: target {target} does not compute what eager PyTorch computes: {'; '.join(result.shortfalls)}; "
            f"{_advice(result, precision)}"
        )


def _advice(result: ParityResult, precision: Precision) -> str:
    comparisons = result.comparisons.values()
    if any(each.overflowed for each in comparisons):
        match precision:
            case "fp16":
                return "fp16 overflows above 65504: use --precision bf16 or fp32"
            case "bf16" | "int8" | "fp8":
                return "use --precision fp32"
            case _:
                return "no tolerance makes up for this: use another target, and report it"
    if any(math.isinf(each.max_abs_error) for each in comparisons):
        return "no tolerance makes up for this: export again, and report it if it stays"
    missed = [each for each in comparisons if each.shortfalls(result.tolerances)]
    if not missed:
        return "if matches so far from the method's own are acceptable, set parity.tie in the recipe"
    wider = "" if precision == "fp32" else "use --precision fp32, or "
    return f"{wider}if this much is acceptable, set parity.max_abs_error, mean_abs_error and cosine in the recipe"


def _first_overflow(program: RewrittenProgram, reference: Reference) -> str:
    """The part of the model, in words, where a value is not-a-number or infinite first; minus infinity is for masks."""
    key = lambda node: node.name if node.op == "call_function" else None  # noqa: E731
    recorder = Recorder(program.merging, key, view=_has_overflow)
    with torch.no_grad():
        recorder.run(*reference.tensors)
    found = next((name for name, overflows in recorder.kept.items() if overflows), "")
    return part_name(annotations(program.merging.graph).get(found, HEAD))


def _has_overflow(value: object) -> bool:
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return False
    return bool((value.isnan() | value.isposinf()).any())
