"""A ladder raced against each of its engines, all over the same images, since the images decide which engine they need.

In: a ladder's bundle, and images. Out: a `BenchReport`, in which a call is over many images: each engine takes them in
its own batches. The last engine is what the others are compared with.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from exporter.benchmark import BenchReport, Contender
from exporter.benchmark.loading import write_inputs
from exporter.bundle import Bundle
from exporter.errors import UsageError
from exporter.ladder import Cascade, images_at_once
from exporter.models import Preprocess, shipped_data
from exporter.pipeline.contenders import as_input
from exporter.pipeline.observe import Observer
from exporter.pipeline.racing import BenchOptions, bundle_subject, engine_contenders, run_race
from exporter.recipe import Recipe
from exporter.records import LadderRecord
from exporter.targets import Array
from exporter.validation import ImageSet, decode, image_arrays, open_images

LADDER = "ladder"
"""What the engines of a ladder together are called among what is measured."""

_LEAST_IMAGES = 64


def race_ladder(
    bundle: Bundle, recipe: Recipe, work: Path, options: BenchOptions, observe: Observer
) -> BenchReport:
    """Race a ladder.

    Args:
        bundle: of its last engine.
        recipe: of the bundle; `validate.data` names images, by default those that ship with the model.
        work: an existing folder.
        options: how; `batches` says how many images a call is over.
        observe: receives the progress of every stage.

    Raises:
        UsageError: there are no images, or a race on a GPU is asked for.
    """
    cascade, record, preprocess = Cascade.of(bundle), bundle.ladder(), bundle.preprocess()
    assert cascade is not None and record is not None and preprocess is not None
    if options.device != "cpu":
        raise UsageError(
            "bench: a ladder decides between its engines on the host; leave --device out, or race one of its engines"
        )
    if len(options.batches) > 1:
        raise UsageError("bench: a ladder is raced over one number of images; give one --batch")
    asked = (
        options.batches[0] if options.batches else max(_LEAST_IMAGES, images_at_once(bundle.signature.batch))
    )
    with observe("route") as note:
        inputs = as_input(recipe, _pixels(_images(recipe), preprocess, asked), preprocess)
        rung_n = cascade.routed(inputs).rung_n
        note(_shares(rung_n, record))
    contenders = _contenders(bundle, record, rung_n)
    (name,) = (each.name for each in bundle.manifest.inputs)
    file = write_inputs(work / f"input-{len(inputs)}.npy", {name: inputs})
    return run_race(contenders, {len(inputs): file}, work, options, observe)


def _contenders(bundle: Bundle, record: LadderRecord, rung_n: Array) -> list[Contender]:
    """Every engine alone, and all of them together with the work that these images take."""
    subjects = [
        bundle_subject(each, rung.name, len(rung_n))
        for each, rung in zip(bundle.rungs(), record.rungs, strict=True)
    ]
    engines = list(engine_contenders(subjects))
    last = replace(engines[-1], reduced=False)
    macs_K = np.cumsum([each.executed_macs for each in engines])
    together = replace(
        last,
        name=f"{LADDER} {record.target}",
        form=LADDER,
        reduced=True,
        executed_macs=round(float(macs_K[rung_n].mean())),
        cheaper=tuple(each.engines[record.target] for each in subjects[:-1]),
        threshold=record.threshold,
        router=record.router,
    )
    return [last, *engines[:-1], together]


def _images(recipe: Recipe) -> ImageSet:
    if recipe.validate.data is not None:
        return open_images(Path(recipe.validate.data), None)
    shipped = shipped_data(recipe.model)
    if shipped is None:
        raise UsageError("bench: expected images, which decide what a ladder does; give some with --data")
    return image_arrays(shipped.images_BHWC, None, name="shipped images")


def _pixels(images: ImageSet, preprocess: Preprocess, asked: int) -> Array:
    """Evenly spaced images, since folders are sorted by class; repeated where there are too few."""
    count = len(images.names)
    positions = np.linspace(0, count - 1, min(count, asked)).astype(int).tolist()
    parts = decode(images, preprocess, positions=positions, chunk=64, workers=0)
    pixels_BCHW = np.concatenate([part.pixels_BCHW for part in parts])
    if not len(pixels_BCHW):
        raise UsageError(f"data: expected images, got none that can be read in {images.name}")
    return np.resize(pixels_BCHW, (asked, *pixels_BCHW.shape[1:]))


def _shares(rung_n: Array, record: LadderRecord) -> str:
    counts = np.bincount(rung_n, minlength=len(record.rungs)).tolist()
    return ", ".join(f"{count} on {rung.name}" for count, rung in zip(counts, record.rungs, strict=True))
