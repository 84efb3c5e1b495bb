"""A sweep's record, made up: two methods at four values of r, one failed point, one that was not run."""

from exporter.records import Accuracy, Difference, Fidelity, Ratio
from exporter.schedule import ScheduleRequest
from exporter.sweep import (
    Built,
    Evaluation,
    Failure,
    Point,
    PointResult,
    Quality,
    Solution,
    SweepRecord,
    Timed,
)

DENSE_TOP1 = 98.25
TOP1 = {"tome": {2: 98.0, 4: 97.75, 6: 96.5}, "pitome": {2: 97.5, 4: 97.25, 6: 97.0}}
IMAGES_PER_S = {0: 400.0, 2: 480.0, 4: 560.0, 6: 700.0}
HALF_WIDTH = 0.5
FRONT = (
    "dense-fp32-onnx",
    "tome-constant-r2-fp32-onnx",
    "tome-constant-r4-fp32-onnx",
    "pitome-constant-r6-fp32-onnx",
)
"""Worked out by hand: of two points with the same r, and so the same throughput, the better one."""


def point(method: str, r: int) -> Point:
    return Point() if r == 0 else Point(method=method, schedule=ScheduleRequest(r=r))


def result(method: str, r: int, top1: float) -> PointResult:
    """A point that is done."""
    asked = point(method, r)
    gained = top1 - DENSE_TOP1
    quality = Quality(
        accuracy=Accuracy(top1=top1, top5=99.75, n=454),
        difference=Difference(top1=gained, interval=(gained - HALF_WIDTH, gained + HALF_WIDTH)),
        fidelity=Fidelity(n=454, cosine_mean=0.99, cosine_min=0.9),
    )
    speedup = IMAGES_PER_S[r] / IMAGES_PER_S[0]
    return PointResult(
        name=asked.name,
        point=asked,
        key="0" * 64,
        status="done",
        built=Built(
            tokens=(65, 65 - r, 65 - 2 * r),
            merged=(r, r),
            gmacs_executed=0.04 - r / 1000,
            gmacs_ratio=0.04 / (0.04 - r / 1000),
            quality=quality,
            notes=("a note of this point",) if r == 6 else (),
        ),
        timed=Timed(
            images_per_s=IMAGES_PER_S[r],
            latency_ms=1000 / IMAGES_PER_S[r],
            speedup=Ratio(value=speedup, interval=(speedup - 0.125, speedup + 0.125)) if r else None,
        ),
    )


def sweep_record(model: str = "vit_digits") -> SweepRecord:
    """The whole sweep, with a solution."""
    done = [result("tome", 0, DENSE_TOP1)]
    done += [result(method, r, top1) for method, curve in TOP1.items() for r, top1 in curve.items()]
    failed, left = point("tome", 8), point("pitome", 8)
    best = Evaluation(name="tome-list24-fp32-onnx", r_per_layer=(16, 8), drop=0.44, measured_speedup=1.5)
    return SweepRecord(
        model=model,
        weights_sha256="cd" * 32,
        data="held-out scans",
        quality_measure="top1",
        environment={"cpu": "a processor", "cores": {"used": [0, 1]}},
        points=(
            *done,
            PointResult(
                name=failed.name,
                point=failed,
                key="1" * 64,
                status="failed",
                failure=Failure(stage="build", error="parity: off by a mile", exit_status=5),
            ),
            PointResult(name=left.name, point=left, key="2" * 64, status="open"),
        ),
        front=FRONT,
        solution=Solution(
            goal="max_drop",
            limit=0.5,
            best=best,
            reached=True,
            explanation="1.50 times as fast at 0.44 points lost",
            evaluated=(best,),
        ),
        notes=("a remark of the sweep",),
    )
