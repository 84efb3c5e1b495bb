"""What a point of a sweep keeps of its measurement."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from exporter.errors import TargetUnavailableError
from exporter.models import ModelRequest
from exporter.pipeline import sweep_point
from exporter.pipeline.sweep_point import BuildPoint, quality_notes, quality_of
from exporter.recipe import Recipe
from exporter.records import DataRecord, Fidelity, ValidationRecord
from exporter.schedule import ScheduleRequest
from exporter.sweep import Point


def measured(not_finite: int) -> ValidationRecord:
    fidelity = Fidelity(
        n=9,
        not_finite=not_finite,
        top1_agreement=50.0,
        kl=0.1,
        cosine_mean=0.9,
        cosine_min=0.5,
        neighbour_overlap=None,
        neighbour_n=9,
    )
    return ValidationRecord(data=DataRecord(name="photos", n=9), fidelity={"onnx": fidelity})


@pytest.mark.parametrize(("not_finite", "notes"), [(0, []), (2, ["outputs of 2 of 9 images are not finite"])])
def test_outputs_that_are_not_finite_are_counted_and_noted(not_finite: int, notes: list[str]) -> None:
    quality = quality_of(measured(not_finite), "onnx")

    assert quality.fidelity is not None
    assert quality.fidelity.not_finite == not_finite
    assert quality_notes(quality) == notes


def test_engine_that_was_built_and_did_not_run_is_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = SimpleNamespace(parity={"trt-rtx-onnx": None})
    exported = SimpleNamespace(bundle=SimpleNamespace(manifest=manifest))
    monkeypatch.setattr(sweep_point, "targets_here", lambda _: None)
    monkeypatch.setattr(sweep_point, "plan_export", lambda _: None)
    monkeypatch.setattr(sweep_point, "with_choices", lambda planned, _: planned)
    monkeypatch.setattr(sweep_point, "build_bundle", lambda *_, **__: exported)
    point = Point(method="tome", schedule=ScheduleRequest(r=4), precision="fp32", target="trt-rtx")
    build = BuildPoint(recipe=Recipe(model=ModelRequest(model="m")), bundles=tmp_path, outputs=None)

    with pytest.raises(TargetUnavailableError, match="^target trt-rtx: its engine does not run here"):
        build(point)
