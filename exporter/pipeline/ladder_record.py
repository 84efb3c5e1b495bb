"""What `ladder.json` says: the certified threshold, what the ladder costs, and what else would do.

In: compiled engines, and their answers on images. Out: a `LadderRecord`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from exporter.bundle import sha256_of
from exporter.errors import GateError
from exporter.ladder import CONFIDENCE, Certified, certify, certify_by_size, fit_cost, rung_of, upper_bound
from exporter.pipeline.compile import Compiled
from exporter.pipeline.ladder_answers import Answers
from exporter.pipeline.ladder_goal import LadderGoal
from exporter.pipeline.ladder_timing import Timed
from exporter.pipeline.stage_options import rewrite_options
from exporter.recipe import merging_name
from exporter.records import Certificate, LadderRecord, RoutedBySize, RungRecord
from exporter.rewrite import rewrite
from exporter.targets import Array


def alone(engines: Sequence[Compiled], found: Answers) -> tuple[RungRecord, ...]:
    """The engines of a ladder, cheapest first, each used alone; how many images each answers is left open."""
    return tuple(
        _rung(engine, differs_N) for engine, differs_N in zip(engines, found.differs_KN, strict=True)
    )


def certified_ladder(
    rungs: Sequence[RungRecord], found: Answers, goal: LadderGoal, *, target: str, dense_gmacs: float
) -> LadderRecord:
    """The ladder with the loosest threshold that its images certify, or the one that saves what is asked.

    Args:
        rungs: its engines alone, cheapest first.
        found: what they say of the images.
        goal: what the threshold has to reach.
        target: of the engines.
        dense_gmacs: 1e9 multiply-accumulates of the dense program.

    Raises:
        GateError: the last engine alone disagrees too often, or no answer of another one may be kept.
    """
    macs_K = np.array([each.gmacs for each in rungs]) / dense_gmacs
    if goal.agreement is not None:
        certified = _agreeing(rungs, found, goal.agreement)
    else:
        assert goal.saving is not None
        certified = fit_cost(found.values_KN, found.differs_KN, macs_K, 1 - goal.saving)
    rung_N = rung_of(found.values_KN, certified.threshold)
    agreement = 1 - certified.bound if goal.agreement is None else goal.agreement
    single = _single(rungs, agreement)
    return LadderRecord(
        target=target,
        router=goal.router,
        threshold=certified.threshold,
        rungs=tuple(replace(each, share=float((rung_N == place).mean())) for place, each in enumerate(rungs)),
        certificate=Certificate(
            agreement=goal.agreement,
            confidence=CONFIDENCE,
            data=found.data,
            fingerprint=found.fingerprint,
            images=len(rung_N),
            repeated=found.repeated,
            unreadable=found.unreadable,
            disagreements=certified.disagreements,
            bound=certified.bound,
            cosine=goal.cosine,
        ),
        macs=float(np.cumsum(macs_K)[rung_N].mean()),
        single=None if single is None else rungs[single].name,
        single_macs=None if single is None else float(macs_K[single]),
        by_size=_by_size(found, macs_K, agreement),
    )


def _agreeing(rungs: Sequence[RungRecord], found: Answers, agreement: float) -> Certified:
    certified = certify(found.values_KN, found.differs_KN, agreement)
    if certified is None:
        raise _never_agrees(rungs[-1], len(found.sizes_N), agreement)
    if (rung_of(found.values_KN, certified.threshold) == len(rungs) - 1).all():
        names = ", ".join(each.name for each in rungs[:-1])
        raise GateError(
            f"agreement: no answer of {names} may be kept at {100 * agreement:g} % on these {len(found.sizes_N)} "
            "images; let them merge less, give more images, or lower --agreement"
        )
    return certified


def timed(record: LadderRecord, times: Timed) -> LadderRecord:
    """A ladder's record with what was timed."""
    rungs = zip(record.rungs, times.images_per_s, strict=True)
    return replace(
        record,
        rungs=tuple(replace(each, images_per_s=rate) for each, rate in rungs),
        timing=times.timing,
    )


def cautions(record: LadderRecord) -> Iterator[str]:
    """What speaks against a ladder, one line each."""
    if record.single_macs is not None and record.single_macs <= record.macs:
        yield (
            f"a single engine wins: {record.single} alone agrees as much with {100 * record.single_macs:.1f} % of "
            f"the dense multiply-accumulates, the ladder with {100 * record.macs:.1f} %"
        )
    if record.by_size is not None and record.by_size.macs <= record.macs:
        yield (
            f"file size alone routes as well: {100 * record.by_size.macs:.1f} % of the dense multiply-accumulates, the "
            f"ladder {100 * record.macs:.1f} %"
        )
    last = record.rungs[-1]
    for each in record.rungs[:-1]:
        if each.images_per_s is not None and last.images_per_s is not None:
            ratio = each.images_per_s / last.images_per_s
            if ratio <= 1:
                yield f"{each.name} is {ratio:.2f}x as fast as {last.name} on this machine; leave it out"
    if record.timing is not None and record.timing.speedup.interval[1] < 1:
        yield f"the ladder is slower than {last.name} alone on this machine"


def _rung(engine: Compiled, differs_N: Array) -> RungRecord:
    """An engine alone."""
    (compiled,) = engine.engines.values()
    wrong = int(differs_N.sum())
    return RungRecord(
        name=merging_name(engine.recipe),
        sha256=sha256_of(engine.folder / compiled.artifact.file),
        gmacs=engine.program.executed_macs / 1e9,
        share=0.0,
        disagreements=wrong,
        bound=upper_bound(wrong, len(differs_N)),
    )


def _never_agrees(last: RungRecord, images: int, agreement: float) -> GateError:
    return GateError(
        f"agreement: already {last.name} alone differs from the dense model on {last.disagreements} of {images} "
        f"images, which can be {100 * last.bound:.2f} % of all, expected at most {100 * (1 - agreement):.4g} %; put "
        "the dense engine (--r 0) last, or lower --agreement"
    )


def _single(rungs: Sequence[RungRecord], agreement: float) -> int | None:
    """The cheapest engine that alone has the agreement, found from the last one on, up to the first that does not."""
    found = None
    for place in reversed(range(len(rungs))):
        if rungs[place].bound > 1 - agreement:
            break
        found = place
    return found


def _by_size(found: Answers, macs_K: Array, agreement: float) -> RoutedBySize | None:
    rung_N = certify_by_size(found.sizes_N, found.differs_KN, agreement)
    if rung_N is None:
        return None
    wrong_N = found.differs_KN[rung_N, np.arange(len(rung_N))]
    return RoutedBySize(macs=float(macs_K[rung_N].mean()), disagreements=int(wrong_N.sum()))


def dense_gmacs(last: Compiled) -> float:
    """1e9 multiply-accumulates of the dense program, which a ladder's last engine need not be."""
    if last.planned.schedule.is_dense:
        return last.program.executed_macs / 1e9
    dense = last.planned.dense
    return rewrite(dense.program, dense.schedule, rewrite_options(dense)).executed_macs / 1e9
