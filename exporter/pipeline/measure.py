"""Measure engines against the dense eager model: accuracy, zero-shot accuracy, fidelity, retrieval, error per block.

In: a `Compiled`, or a bundle's runners with its planned and rewritten program, and a `Material`. Out: a `Measured`,
whose record is the content of `validation.json`.
"""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from exporter.errors import GateError
from exporter.graph.nodes import operands, output_node, shape_of
from exporter.pipeline.compile import Compiled
from exporter.pipeline.contenders import dense_contender, engine_contender
from exporter.pipeline.error_growth import error_growth
from exporter.pipeline.material import Material
from exporter.pipeline.observe import Observer
from exporter.pipeline.plan import Planned
from exporter.pipeline.slot_needs import slot_needs
from exporter.pipeline.texts import Embed, TextTower
from exporter.recipe import Validation
from exporter.records import BlockError, DataRecord, ValidationRecord
from exporter.rewrite import RewrittenProgram
from exporter.targets import Array, Run
from exporter.validation import (
    Contender,
    Hits,
    Outputs,
    RetrievalReport,
    best_answers,
    class_embeddings,
    collect,
    default_workers,
    fidelity,
    hits,
    join_hits,
    label_doubt,
    patch_fidelity,
    rank_pairs,
    report_accuracy,
    report_retrieval,
    zero_shot_logits,
)

DENSE = "dense"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Measurements on images or texts.

    Attributes:
        record: the content of `validation.json`.
        images_per_s: by contender, where it ran just now; not part of any file.
    """

    record: ValidationRecord
    images_per_s: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Engines:
    """What is measured, and against what.

    Attributes:
        planned: with the dense program, and a recipe that says how the runners take their images.
        program: rewritten, for the error per block.
        runners: by target, and of a ladder's engines as one.
        texts: embeds prompts and captions.
    """

    planned: Planned
    program: RewrittenProgram
    runners: Mapping[str, Run]
    texts: TextTower

    def contenders(self) -> dict[str, Contender]:
        """The dense model and every engine."""
        preprocess = self.planned.model.preprocess
        assert preprocess is not None
        engines = {
            name: engine_contender(self.planned.recipe, runner, preprocess)
            for name, runner in self.runners.items()
        }
        return {DENSE: dense_contender(self.planned), **engines}


def measure_compiled(compiled: Compiled, found: Material, texts: TextTower, observe: Observer) -> Measured:
    """Measure a compiled model in a store that lasts as long as that takes, and hold the gates of its recipe.

    Raises:
        GateError: an engine loses more than the recipe allows.
    """
    engines = Engines(
        planned=compiled.planned, program=compiled.program, runners=compiled.runners, texts=texts
    )
    with tempfile.TemporaryDirectory(dir=compiled.folder) as store:
        if found.outputs is not None:
            shutil.copytree(found.outputs, store, dirs_exist_ok=True)
        measured = measure(engines, found, Path(store), observe)
    require_measured(compiled.recipe.validate, measured.record)
    return measured


def measure(
    engines: Engines, material: Material, store: Path, observe: Observer, workers: int | None = None
) -> Measured:
    """Run the dense program and every engine over the material.

    Args:
        engines: to measure.
        material: to measure on.
        store: folder for outputs; what it holds already is not computed again.
        observe: called with progress.
        workers: processes that decode; None chooses.
    """
    preprocess = engines.planned.model.preprocess
    assert preprocess is not None
    contenders = engines.contenders()
    sets = material.sets
    if len(sets) == 2 and sets["data"].fingerprint == sets["pairs"].fingerprint:
        del sets["pairs"]
    engines.texts.check(material.texts)
    outputs: dict[str, Outputs] = {}
    for key, images in sets.items():
        with observe(f"run {images.name}") as note:
            chosen = default_workers(len(images.names)) if workers is None else workers
            outputs[key] = collect(
                images, preprocess, contenders, store / key, workers=chosen, progress=note.progress
            )
            note(_rates(outputs[key]))
    with observe("compare") as note:
        record = replace(
            _compare(engines, material, outputs),
            blocks=_block_errors(engines, outputs),
            slots=slot_needs(engines.planned, engines.program, next(iter(outputs.values()))),
        )
        note(_headline(record))
    return Measured(record=record, images_per_s=_main(outputs).images_per_s)


def _main(outputs: Mapping[str, Outputs]) -> Outputs:
    """Those of the images that are judged without pairs, if there are any."""
    return outputs.get("data") or outputs["pairs"]


def _block_errors(engines: Engines, outputs: Mapping[str, Outputs]) -> tuple[BlockError, ...]:
    tokens = engines.planned.schedule.tokens
    errors = error_growth(engines.planned, engines.program, next(iter(outputs.values())))
    return tuple(
        BlockError(block=block, tokens=tokens[block + 1], relative_error=error)
        for block, error in errors.items()
    )


def dense_doubts(planned: Planned, material: Material, outputs: Outputs, texts: TextTower) -> tuple[str, ...]:
    """Why the labels of the material's images are probably not the model's, by what the dense model says of them."""
    embeds = {DENSE: texts.embed_with(DENSE)} if material.needs_texts else {}
    classifiers = _classifiers(planned, material, embeds)
    return () if classifiers is None else _doubts(planned, outputs, classifiers)


def require_measured(gates: Validation, record: ValidationRecord) -> None:
    """Raise a GateError if a target loses more than the recipe allows."""
    limit = gates.accuracy.max_drop
    for name, difference in record.difference.items():
        if limit is not None and -difference.top1 > limit:
            raise GateError(
                f"accuracy: target {name} loses {-difference.top1:.2f} points of top-1, expected at most {limit:g}; "
                "merge less, or raise validate.accuracy.max_drop"
            )
    least = gates.agreement.min
    for name, found in record.fidelity.items():
        if least is not None and (found.top1_agreement is None or found.top1_agreement < least):
            raise GateError(
                f"agreement: target {name} agrees with the dense model on {found.top1_agreement or 0:.2f} % of "
                f"{record.data.kind}, expected at least {least:g} %; merge less, or lower validate.agreement.min"
            )
    most = gates.overflow.max
    for need in record.slots:
        if most is not None and need.overflow > most:
            raise GateError(
                f"capacity below the observed need: {need.overflow:.2f} % of {need.n} images keep more than the "
                f"{need.slots} tokens that block {need.block} has slots for, expected at most {most:g} %; leave it "
                f"{need.nearly_all} (--keep-per-layer), which is enough for 99.9 %, or raise validate.overflow.max"
            )


def _compare(engines: Engines, material: Material, outputs: Mapping[str, Outputs]) -> ValidationRecord:
    main, match = _main(outputs), _main(outputs).images.match
    planned, targets = engines.planned, list(engines.runners)
    named = (DENSE, *targets) if material.needs_texts else ()
    embeds = {name: engines.texts.embed_with(name) for name in named}
    classifiers = _classifiers(planned, material, embeds) if "data" in outputs else None
    record = ValidationRecord(
        data=DataRecord(name=main.images.name, n=len(main.positions), unreadable=main.unreadable),
        fidelity={
            name: fidelity(_both(main, name), logits=planned.model.output_names[0] == "logits")
            for name in targets
        },
        patches={
            name: patch_fidelity(_both(main, name), grid)
            for name in targets
            if (grid := _patch_grid(planned)) is not None
        },
        labels_matched_by=None if match is None else match.matched_by,
        labels=() if match is None else match.classes,
        notes=main.images.notes,
    )
    if classifiers is not None:
        record = _classified(record, main, classifiers, targets, zero_shot=bool(material.class_names))
        record = replace(record, warnings=_doubts(planned, main, classifiers))
    if material.pairs is None:
        return record
    found = _retrieved(material, outputs.get("pairs") or main, embeds)
    return replace(record, retrieval=found.retrieval, retrieval_difference=found.difference)


def _patch_grid(planned: Planned) -> tuple[int, int] | None:
    """Rows and columns of the patches whose features are the model's first output; None where they are not."""
    anatomy, output = planned.anatomy, output_node(planned.program.graph_module.graph)
    shape = shape_of(operands(output)[0])
    if anatomy is None or len(shape) != 3 or planned.model.output_names[0] not in ("tokens", "features"):
        return None
    patches = anatomy.tokens - anatomy.prefix
    if shape[1] not in (patches, anatomy.tokens):
        return None
    return anatomy.grid or (1, patches)


def _classifiers(
    planned: Planned, material: Material, embeds: Mapping[str, Embed]
) -> dict[str, Array | None] | None:
    """By contender, the class embeddings that turn its outputs into logits; None as a value where they are logits."""
    if planned.model.output_names[0] == "logits":
        return {}
    if not material.class_names:
        return None
    return {
        name: class_embeddings(embed, material.class_names, material.templates)
        for name, embed in embeds.items()
    }


def _logits(outputs: Outputs, contender: str, classifiers: Mapping[str, Array | None]) -> Iterator[Array]:
    classes_KC = classifiers.get(contender)
    for chunk in outputs.of(contender):
        yield chunk if classes_KC is None else zero_shot_logits(chunk, classes_KC)


def _both(
    outputs: Outputs, target: str, classifiers: Mapping[str, Array | None] | None = None
) -> Iterator[tuple[Array, Array]]:
    """What the dense model and a target say, as logits where there are classifiers."""
    dense, own = (_logits(outputs, name, classifiers or {}) for name in (DENSE, target))
    return zip(dense, own, strict=True)


def _classified(
    record: ValidationRecord,
    outputs: Outputs,
    classifiers: Mapping[str, Array | None],
    targets: list[str],
    *,
    zero_shot: bool,
) -> ValidationRecord:
    if zero_shot:
        agreements = {
            name: fidelity(_both(outputs, name, classifiers), logits=True).top1_agreement for name in targets
        }
        kept = {
            name: replace(found, top1_agreement=agreements[name]) for name, found in record.fidelity.items()
        }
        record = replace(record, fidelity=kept)
    labels = outputs.labels
    if labels is None:
        return record
    found = {name: join_hits(_hits(outputs, name, classifiers, labels)) for name in (DENSE, *targets)}
    task = "zero-shot" if zero_shot else "classification"
    report = report_accuracy(found)
    return replace(record, task=task, accuracy=report.accuracy, difference=report.difference)


def _hits(
    outputs: Outputs, contender: str, classifiers: Mapping[str, Array | None], labels: Array
) -> Iterator[Hits]:
    start = 0
    for logits in _logits(outputs, contender, classifiers):
        yield hits(logits, labels[start : start + len(logits)])
        start += len(logits)


def _doubts(planned: Planned, outputs: Outputs, classifiers: Mapping[str, Array | None]) -> tuple[str, ...]:
    """What the dense model's answers say against the labels; those of random weights say nothing."""
    labels = outputs.labels
    if labels is None or planned.model.weights_kind == "random":
        return ()
    answers, classes = list[Array](), 1
    for logits in _logits(outputs, DENSE, classifiers):
        answers.append(best_answers(logits))
        classes = logits.shape[1]
    doubt = label_doubt(np.concatenate(answers), labels, classes)
    return () if doubt is None else (doubt,)


def _retrieved(material: Material, outputs: Outputs, embeds: Mapping[str, Embed]) -> RetrievalReport:
    assert material.pairs is not None
    rows = {int(position): row for row, position in enumerate(outputs.positions)}
    pairs = [(rows[image], text) for image, text in material.pairs.pairs if image in rows]
    kept = sorted({text for _, text in pairs})
    place = {text: row for row, text in enumerate(kept)}
    texts = [material.pairs.texts[text] for text in kept]
    kept_pairs = [(image, place[text]) for image, text in pairs]
    return report_retrieval(
        {name: rank_pairs(outputs.stacked(name), embed(texts), kept_pairs) for name, embed in embeds.items()}
    )


def _rates(outputs: Outputs) -> str:
    parts = [
        f"{len(outputs.positions)} images",
        *(f"{name} {rate:.0f}/s" for name, rate in outputs.images_per_s.items()),
    ]
    if outputs.unreadable:
        parts.append(f"{len(outputs.unreadable)} unreadable")
    return ", ".join(parts)


def _headline(record: ValidationRecord) -> str:
    if record.accuracy:
        return ", ".join(f"{name} {each.top1:.2f} %" for name, each in record.accuracy.items())
    if record.retrieval:
        found = record.retrieval.items()
        return ", ".join(f"{name} R@1 {each.text_to_image.r1:.1f} %" for name, each in found)
    return ", ".join(f"{name} cosine {each.cosine_mean:.4f}" for name, each in record.fidelity.items())
