"""Accuracy as the pipeline needs it: on which images, of which contenders, with what gate."""

from collections.abc import Mapping
from pathlib import Path

from exporter.errors import GateError, UsageError
from exporter.models import LoadedModel, shipped_images
from exporter.pipeline.observe import Observer
from exporter.pipeline.plan import Planned
from exporter.recipe import Recipe
from exporter.targets import Runner
from exporter.validation import AccuracyReport, LabelledImages, image_folder, labelled_arrays, measure


def labelled_images(recipe: Recipe, model: LoadedModel) -> LabelledImages | None:
    """What accuracy is measured on: the recipe's folder, or images that ship with the model."""
    shipped = shipped_images(model)
    if recipe.accuracy.data is None and recipe.accuracy.max_drop is not None and shipped is None:
        raise UsageError("accuracy: max_drop needs labelled images; give a folder with --data DIR")
    if recipe.accuracy.data is None:
        return labelled_arrays(*shipped) if shipped is not None else None
    if model.output_names[0] != "logits":
        raise UsageError(f"data: {model.name} gives {model.output_names[0]}, and accuracy needs logits")
    return image_folder(Path(recipe.accuracy.data))


def measure_runners(
    recipe: Recipe, planned: Planned, runners: Mapping[str, Runner], images: LabelledImages, observe: Observer
) -> AccuracyReport:
    """Run the dense program and every runner over the images."""
    if planned.model.preprocess is None:
        raise UsageError(f"data: {planned.model.name} does not say how images become its input")
    with observe("measure accuracy") as note:
        report = measure(
            images,
            planned.model.preprocess,
            planned.program.graph_module,
            runners,
            as_bytes=recipe.input == "uint8",
            channels_last=recipe.layout == "nhwc",
        )
        note(", ".join(f"{name} {each.top1:.2f} %" for name, each in report.accuracy.items()))
    return report


def require_accuracy(recipe: Recipe, report: AccuracyReport | None) -> None:
    """Raise a GateError if a target loses more points of top-1 than the recipe allows."""
    limit = recipe.accuracy.max_drop
    if limit is None or report is None:
        return
    for name, difference in report.difference.items():
        if -difference.top1 > limit:
            raise GateError(
                f"accuracy: target {name} loses {-difference.top1:.2f} points of top-1, expected at most {limit:g}; "
                "merge less, or raise accuracy.max_drop"
            )
