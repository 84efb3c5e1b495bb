"""Measure engines of a text encoder against the dense eager model.

Fidelity, accuracy where texts have labels, and the correlation with scores where there are pairs.

In: a planned model, its engines' runners, and texts. Out: a `Measured`, as for images.
"""

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from exporter.errors import InternalError
from exporter.models import TextReader
from exporter.pipeline.material import Material
from exporter.pipeline.measure import DENSE, Measured
from exporter.pipeline.observe import Observer
from exporter.pipeline.plan import Planned
from exporter.records import DataRecord, ValidationRecord, write_whole
from exporter.targets import Array, Run
from exporter.validation import (
    ScoredPairs,
    SimilarityReport,
    TextSet,
    fidelity,
    hits,
    pair_cosines,
    report_accuracy,
    report_similarity,
)

_CHUNK = 64

DENSE_FILE = "dense.npy"


def measure_texts(
    planned: Planned, runners: Mapping[str, Run], found: Material, observe: Observer
) -> Measured:
    """Run the dense program and every engine over texts.

    Args:
        planned: with the dense program.
        runners: by target; a runner, or what runs texts of several lengths (`by_length`).
        found: with the texts, and the dense program's outputs where they are known already.
        observe: called with progress.

    Raises:
        UsageError: a text is longer than the engines take.
    """
    texts = found.texts_alone
    assert texts is not None
    with observe(f"run {texts.name}") as note:
        inputs = _reader(planned)(texts.texts)
        known = None if found.outputs is None else np.load(found.outputs / DENSE_FILE)
        outputs = {DENSE: _dense(planned, inputs) if known is None else known}
        outputs |= {name: next(iter(runner(inputs).values())) for name, runner in runners.items()}
        note(f"{len(texts.texts)} texts")
    logits = planned.model.output_names[0] == "logits"
    record = ValidationRecord(
        data=DataRecord(name=texts.name, kind="texts", n=len(texts.texts)),
        fidelity={name: fidelity([(outputs[DENSE], outputs[name])], logits=logits) for name in runners},
        labels_matched_by=None if texts.match is None else texts.match.matched_by,
        labels=() if texts.match is None else texts.match.classes,
        notes=texts.notes,
    )
    if texts.pairs is not None:
        similar = _similarity(texts.pairs, outputs)
        record = replace(record, similarity=similar.similarity, similarity_difference=similar.difference)
    if texts.labels is None:
        return Measured(record=record)
    labels = np.array(texts.labels)
    report = report_accuracy({name: hits(each, labels) for name, each in outputs.items()})
    return Measured(
        record=replace(record, task="classification", accuracy=report.accuracy, difference=report.difference)
    )


def write_dense(planned: Planned, texts: TextSet, folder: Path) -> None:
    """Run the dense program over texts, and keep its outputs for `measure_texts`.

    Raises:
        UsageError: a text is longer than the engines take.
    """
    outputs, content = _dense(planned, _reader(planned)(texts.texts)), io.BytesIO()
    np.save(content, outputs)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / DENSE_FILE, content.getvalue())


def _similarity(scored: ScoredPairs, outputs: Mapping[str, Array]) -> SimilarityReport:
    first, second = np.array(scored.pairs).T
    cosines = {name: pair_cosines(each[first], each[second]) for name, each in outputs.items()}
    return report_similarity(cosines, np.array(scored.scores))


def _reader(planned: Planned) -> TextReader:
    model, truncate = planned.model, planned.recipe.validate.truncate
    if model.tokenizer is None:
        raise InternalError("a text encoder without a tokenizer was given texts")
    return TextReader(model.tokenizer, model.example_input.shape[0], tuple(model.inputs), truncate)


def _dense(planned: Planned, inputs: Mapping[str, Array]) -> Array:
    """The first output of the dense program, float32."""
    tensors = [torch.from_numpy(each).split(_CHUNK) for each in inputs.values()]
    with torch.no_grad():
        parts = [planned.program.graph_module(*part)[0] for part in zip(*tensors, strict=True)]
    outputs: Array = torch.cat(parts).float().numpy()
    return outputs
