"""What a point of a sweep keeps of its measurement."""

import pytest

from exporter.pipeline.sweep_point import quality_notes, quality_of
from exporter.records import DataRecord, Fidelity, ValidationRecord


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
