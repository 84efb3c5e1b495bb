"""Parity: does an emitted artifact compute what the rewritten program computes in eager PyTorch?

In: a `RewrittenProgram`, an `Artifact` and inputs. Out: a `ParityResult`, whose every number is reported and whose
gate has no slack that is not in `Tolerances`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from exporter.forms import Precision
from exporter.reduction.match import is_readable
from exporter.rewrite import RewrittenProgram
from exporter.targets import Array, Artifact
from exporter.validation.follow import agreements, follow_matches
from exporter.validation.reference import Reference


@dataclass(frozen=True, kw_only=True)
class Tolerances:
    """What an artifact may differ by.

    Attributes:
        max_abs_error: largest absolute difference, for outputs of magnitude 1 or less; it grows with the magnitude.
        mean_abs_error: mean absolute difference, likewise.
        cosine: smallest cosine similarity of an output row.
        tie: largest regret of a match, in cosine similarity; below it two choices count as tied.
    """

    max_abs_error: float
    mean_abs_error: float
    cosine: float
    tie: float


TOLERANCES: Mapping[Precision, Tolerances] = {
    "fp32": Tolerances(max_abs_error=1e-4, mean_abs_error=1e-5, cosine=0.99999, tie=1e-5),
    "fp16": Tolerances(max_abs_error=3e-2, mean_abs_error=1e-2, cosine=0.999, tie=1e-2),
    "bf16": Tolerances(max_abs_error=1e-1, mean_abs_error=3e-2, cosine=0.99, tie=5e-2),
    "int8": Tolerances(max_abs_error=5e-1, mean_abs_error=1e-1, cosine=0.98, tie=2e-1),
    "fp8": Tolerances(max_abs_error=5e-1, mean_abs_error=1e-1, cosine=0.98, tie=2e-1),
}
"""Defaults, all against eager PyTorch in fp32. fp16 follows NVIDIA's advice of 1e-2 on the mean error; bf16 has three
bits less; int8 and fp8 are judged by accuracy first, and here only kept from nonsense."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One output against the expected one.

    Attributes:
        max_abs_error: largest absolute difference.
        mean_abs_error: mean absolute difference.
        cosine: smallest cosine similarity of a row.
        magnitude: largest absolute value expected: infinite where one is not finite, not-a-number for another shape.
    """

    max_abs_error: float
    mean_abs_error: float
    cosine: float
    magnitude: float

    @property
    def overflowed(self) -> bool:
        """Whether what was expected is finite, and what came is not."""
        return math.isinf(self.max_abs_error) and math.isfinite(self.magnitude)

    def shortfalls(self, allowed: Tolerances) -> list[str]:
        """What exceeds the tolerances, each as a phrase."""
        if self.overflowed:
            return [f"not finite, where eager PyTorch gives values of up to {self.magnitude:.3g}"]
        if math.isnan(self.magnitude):
            return ["another shape than eager PyTorch gives"]
        if math.isinf(self.magnitude):
            return ["eager PyTorch itself gives values that are not finite"]
        scale = max(1.0, self.magnitude)
        return [
            *_above("max_abs_error", self.max_abs_error, allowed.max_abs_error * scale),
            *_above("mean_abs_error", self.mean_abs_error, allowed.mean_abs_error * scale),
            *(
                []
                if self.cosine >= allowed.cosine
                else [f"cosine {self.cosine:.6f} below {allowed.cosine:g}"]
            ),
        ]


@dataclass(frozen=True, kw_only=True)
class ParityResult:
    """How an artifact compares with eager PyTorch.

    Attributes:
        comparisons: by input and output; where matches differ, of the artifact against eager PyTorch along the
            artifact's matches.
        match_agreement: per merging block, the share of merges that eager PyTorch makes as well, over all inputs.
        followed: names of the inputs on which matches differ.
        tie_regret: by how much, at most, a differing match misses the method's definition.
        tolerances: what was demanded.
    """

    comparisons: Mapping[str, Comparison]
    match_agreement: tuple[float, ...] = ()
    followed: tuple[str, ...] = ()
    tie_regret: float = 0.0
    tolerances: Tolerances

    @property
    def max_abs_error(self) -> float:
        """The worst of all comparisons."""
        return max(each.max_abs_error for each in self.comparisons.values())

    @property
    def mean_abs_error(self) -> float:
        """The worst of all comparisons."""
        return max(each.mean_abs_error for each in self.comparisons.values())

    @property
    def cosine(self) -> float:
        """The worst of all comparisons."""
        return min(each.cosine for each in self.comparisons.values())

    @property
    def shortfalls(self) -> list[str]:
        """What the gate was missed by, each as a phrase; empty if it was met."""
        missed = [
            f"{name}: {phrase}"
            for name, comparison in self.comparisons.items()
            for phrase in comparison.shortfalls(self.tolerances)
        ]
        return missed + _above("matches: regret", self.tie_regret, self.tolerances.tie)

    @property
    def passed(self) -> bool:
        """Whether everything is within the tolerances."""
        return not self.shortfalls


def verify(
    program: RewrittenProgram,
    artifact: Artifact,
    references: Mapping[str, Reference],
    tolerances: Tolerances,
) -> ParityResult:
    """Compare an artifact with its program on every input.

    Args:
        program: what was emitted.
        artifact: just emitted.
        references: inputs by name, and what eager PyTorch makes of them (`run_eager`).
        tolerances: the gate.
    """
    comparisons: dict[str, Comparison] = {}
    shares: list[list[float]] = []
    followed: list[str] = []
    regret = 0.0
    for name, reference in references.items():
        got, expected = artifact.runner(reference.inputs), reference.outputs
        records = _engine_records(program, artifact, reference)
        readable = _are_readable(program, records, reference.records)
        shares.append(agreements(program, records, reference.records) if readable else [0.0] * len(records))
        if not readable:
            regret = float("inf")
        elif any(share < 1 for share in shares[-1]):
            expected, worst = follow_matches(program, reference.tensors, records)
            followed.append(name)
            regret = max(regret, worst)
        for (output, array), tensor in zip(got.items(), expected, strict=True):
            comparisons[f"{name}/{output}"] = compare(array, tensor.numpy())
    return ParityResult(
        comparisons=comparisons,
        match_agreement=tuple(float(np.mean(block)) for block in zip(*shares, strict=True)),
        followed=tuple(followed),
        tie_regret=regret,
        tolerances=tolerances,
    )


def along_matches(program: RewrittenProgram, artifact: Artifact, reference: Reference) -> Reference:
    """The reference under the artifact's own matches, which `verify` has found sound: what the artifact computes.

    Where a near-tie went the other way, this and not the reference itself is what a later run of the artifact has to
    be compared with.
    """
    records = _engine_records(program, artifact, reference)
    outputs, _ = follow_matches(program, reference.tensors, records)
    return replace(reference, outputs=outputs, records=tuple(records))


def compare(got: Array, expected: Array) -> Comparison:
    """Errors of an output (B, ...) against the expected one; another shape or a not-a-number is an infinite error."""
    if got.shape != expected.shape:
        return _incomparable(math.nan)
    if not np.isfinite(expected).all():
        return _incomparable(math.inf)
    if not np.isfinite(got).all():
        return _incomparable(float(np.abs(expected).max()))
    one, other = (array.astype(np.float64).reshape(len(array), -1) for array in (got, expected))
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    cosines = np.where(
        norms > 0, (one * other).sum(axis=1) / np.maximum(norms, 1e-300), (one == other).all(axis=1)
    )
    return Comparison(
        max_abs_error=float(np.abs(one - other).max()),
        mean_abs_error=float(np.abs(one - other).mean()),
        cosine=float(cosines.min()),
        magnitude=float(np.abs(other).max()),
    )


def _incomparable(magnitude: float) -> Comparison:
    return Comparison(max_abs_error=math.inf, mean_abs_error=math.inf, cosine=-1.0, magnitude=magnitude)


def _above(what: str, value: float, limit: float) -> list[str]:
    return [] if value <= limit else [f"{what} {value:.3g} above {limit:.3g}"]


def _engine_records(program: RewrittenProgram, artifact: Artifact, reference: Reference) -> list[Tensor]:
    if artifact.probe is None:
        return []
    results = list(artifact.probe(reference.inputs).values())
    return [torch.from_numpy(record) for record in results[program.outputs :]]


def _are_readable(program: RewrittenProgram, engine: Sequence[Tensor], eager: Sequence[Tensor]) -> bool:
    """Whether an engine's records have the shape and the range of matches, so that they can be read at all."""
    return all(
        record.shape == own.shape and is_readable(record, site.r, absent=program.method.absent)
        for record, own, site in zip(engine, eager, filter(None, program.sites), strict=False)
    )
