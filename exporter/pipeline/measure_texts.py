"""Measure engines of a text encoder against the dense eager model.

Fidelity, accuracy where texts have labels, and the correlation with scores where there are pairs.

In: a planned model, its engines' runners, and texts. Out: a `Measured`, as for images.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch

from exporter.errors import InternalError
from exporter.models import TextReader
from exporter.pipeline.measure import DENSE, Measured
from exporter.pipeline.observe import Observer
from exporter.pipeline.plan import Planned
from exporter.records import DataRecord, ValidationRecord
from exporter.targets import Array, Inputs
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

Run = Callable[[Inputs], Mapping[str, Array]]
"""What runs inputs, outputs by name."""


def measure_texts(
    planned: Planned, runners: Mapping[str, Run], texts: TextSet, observe: Observer
) -> Measured:
    """Run the dense program and every engine over the texts.

    Args:
        planned: with the dense program.
        runners: by target; a runner, or a ladder of several lengths.
        texts: to measure on.
        observe: called with progress.

    Raises:
        UsageError: a text is longer than the engines take.
    """
    with observe(f"run {texts.name}") as note:
        inputs = _reader(planned)(texts.texts)
        outputs = {DENSE: _dense(planned, inputs)}
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
