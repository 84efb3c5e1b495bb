"""Validation: the proof that an artifact is right, and what merging costs in accuracy."""

from exporter.validation.accuracy import (
    Accuracy,
    AccuracyReport,
    Difference,
    LabelledImages,
    image_folder,
    labelled_arrays,
    measure,
)
from exporter.validation.inputs import image_inputs, tensor_inputs
from exporter.validation.parity import (
    TOLERANCES,
    Comparison,
    ParityResult,
    Tolerances,
    compare,
    outputs_along_matches,
    prove,
    require,
)
from exporter.validation.reference import Reference, run_eager

__all__ = [
    "TOLERANCES",
    "Accuracy",
    "AccuracyReport",
    "Comparison",
    "Difference",
    "LabelledImages",
    "ParityResult",
    "Reference",
    "Tolerances",
    "compare",
    "image_folder",
    "image_inputs",
    "labelled_arrays",
    "measure",
    "outputs_along_matches",
    "prove",
    "require",
    "run_eager",
    "tensor_inputs",
]
