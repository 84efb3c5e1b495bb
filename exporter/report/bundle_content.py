"""The content of a bundle's report: what it is, what it costs, and how it was verified.

In: a bundle with the files that were written beside its engines. Out: a `ReportContent`.
What was not run is said to be not run, with the command that runs it.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from exporter.bundle import Manifest
from exporter.records import BenchRecord, LadderRecord, ValidationRecord
from exporter.report import number_text as show
from exporter.report.content import (
    Commands,
    Facts,
    Headline,
    LineChart,
    Listing,
    Paragraph,
    Part,
    Picture,
    ReportContent,
    Section,
    Series,
    Slideshow,
    Table,
    TokenChart,
    absent,
    section,
)
from exporter.report.ladder_section import ladder_sections
from exporter.report.quality_sections import accuracy_section, fidelity_section, retrieval_section
from exporter.report.speed_sections import speed_section

_LEAST = 1e-9
"""GMACs or milliseconds of a first block that others are shown as a share of; what is less was not measured."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Everything that a bundle's report is made of.

    Attributes:
        manifest: the bundle's.
        validation: None if nothing was validated.
        benchmark: None if nothing was benchmarked.
        pictures: what was merged, block by block; empty if the matches were not kept.
        ladder: None of a bundle that holds none.
    """

    manifest: Manifest
    validation: ValidationRecord | None
    benchmark: BenchRecord | None
    pictures: tuple[Picture, ...]
    ladder: LadderRecord | None = None

    @property
    def block_ms(self) -> dict[str, dict[int, float]]:
        """By target, the time of each block."""
        found = self.benchmark.blocks if self.benchmark else {}
        return {target: {row.block: row.ms for row in rows} for target, rows in found.items()}


def bundle_content(evidence: Evidence) -> ReportContent:
    """Everything that a bundle's report says, in order."""
    manifest = evidence.manifest
    model = manifest.model
    return ReportContent(
        title=manifest.name,
        subtitle=(
            f"{model.source}:{model.id}, {model.weights.kind} weights, {manifest.tower} tower, method "
            f"{manifest.method}, schedule {manifest.schedule.requested}"
        ),
        headlines=_headlines(evidence),
        sections=(
            *ladder_sections(evidence.ladder),
            _merged_section(evidence),
            _blocks_section(evidence),
            _parity_section(manifest),
            accuracy_section(evidence.validation, manifest.name),
            retrieval_section(evidence.validation, manifest.name),
            fidelity_section(evidence.validation, manifest.name),
            speed_section(evidence.benchmark, manifest),
            _notes_section(manifest),
            _reproduction_section(evidence),
        ),
    )


def _headlines(evidence: Evidence) -> tuple[Headline, ...]:
    manifest = evidence.manifest
    tokens, counts = manifest.schedule.tokens, manifest.gmacs
    dropped = sum(manifest.schedule.dropped or ())
    leave = f"{sum(manifest.schedule.merged)} merged" + (f", {dropped} dropped" if dropped else "")
    first = Headline(
        label="Tokens",
        value=f"{tokens[0]} to {tokens[-1]}" if tokens else "as they are",
        detail=f"{leave} in {show.count(len(manifest.schedule.merged), 'block')}",
    )
    work = Headline(
        label=f"GMACs per {manifest.counted.removesuffix('s')}",
        value=f"{show.gmacs(counts.dense)} to {show.gmacs(counts.reduced)}",
        detail=f"{show.times(counts.ratio)} fewer; {show.gmacs(counts.executed)} executed",
    )
    return first, work, _speed_headline(evidence), _accuracy_headline(evidence), _parity_headline(manifest)


def _speed_headline(evidence: Evidence) -> Headline:
    record = evidence.benchmark
    ratio = record.main_ratio if record else None
    if record is None or ratio is None:
        return Headline(label="Speed", value="not measured", tone="absent")
    doubtful = f"; {show.count(len(record.warnings), 'warning')}" if record.warnings else ""
    return Headline(
        label="Speed",
        value=show.times(ratio.value),
        detail=f"{show.times_interval(ratio.interval)}: {ratio.name}, batch {ratio.batch}{doubtful}",
        tone="good" if ratio.interval[0] > 1 else "bad" if ratio.interval[1] < 1 else "plain",
    )


def _accuracy_headline(evidence: Evidence) -> Headline:
    record = evidence.validation
    if record is None or not record.difference:
        return Headline(label="Top-1 against dense", value="not measured", tone="absent")
    target, worst = min(record.difference.items(), key=lambda item: item[1].top1)
    low, high = worst.interval
    return Headline(
        label="Top-1 against dense",
        value=f"{show.points(worst.top1)} points",
        detail=f"{show.points(low)} to {show.points(high)}, {target}",
        tone="bad" if high < 0 else "plain",
    )


def _parity_headline(manifest: Manifest) -> Headline:
    if not manifest.parity:
        return Headline(label="Parity", value="not verified", tone="absent")
    failed = [target for target, record in manifest.parity.items() if not record.passed]
    worst = max(record.max_abs_error for record in manifest.parity.values())
    return Headline(
        label="Parity with eager PyTorch",
        value="failed" if failed else "passed",
        detail=f"failed: {', '.join(failed)}" if failed else f"largest error {show.error(worst)}",
        tone="bad" if failed else "good",
    )


def _merged_section(evidence: Evidence) -> Section:
    title, manifest = "What was merged", evidence.manifest
    if not evidence.pictures:
        return section(title, absent(_why_no_pictures(manifest)))
    prefix = manifest.tokens_protected
    text = (
        "Every token is drawn as the patches that it stands for, in their mean colour. Patches merge because they "
        "look alike, so a token's patches need not touch."
    )
    if prefix:
        never = "never merges" if prefix == 1 else "never merge"
        text += f" {show.count(prefix, 'protected token')} in front of the patches {never}."
    parts: list[Part] = [Paragraph(text=text), Slideshow(label="Block", steps=evidence.pictures)]
    drawn, planned = evidence.pictures[-1].label.rpartition(": ")[2], f"{manifest.schedule.tokens[-1]} tokens"
    if drawn != planned:
        text = (
            f"The schedule ends at {planned}, the pictures at {drawn}: merges whose result nothing reads "
            "are not executed."
        )
        parts.append(Paragraph(text=text))
    return section(title, *parts)


def _why_no_pictures(manifest: Manifest) -> str:
    if manifest.tower == "text":
        return "A text tower has no image to draw."
    if manifest.schedule.is_dense:
        return "Nothing: this is the dense model."
    return "Not drawn: this bundle does not hold the groups of its tokens (merges.npz)."


def _blocks_section(evidence: Evidence) -> Section:
    title, schedule = "Tokens, arithmetic and time per block", evidence.manifest.schedule
    if not schedule.tokens:
        return section(title, Paragraph(text="This tower is exported as it is; nothing merges."))
    chart = TokenChart(
        title="Tokens that enter each block",
        x_label="block",
        y_label="tokens that enter",
        kept=schedule.tokens[:-1],
        dense=schedule.tokens[0],
    )
    parts: list[Part] = [chart, _block_table(evidence), *_block_chart(evidence)]
    if evidence.manifest.gmacs.blocks is None:
        parts.append(absent("Arithmetic per block: not worked out here."))
    if not evidence.block_ms:
        parts.append(absent("Time per block: not measured."))
    return section(title, *parts)


def _block_chart(evidence: Evidence) -> tuple[Part, ...]:
    """Arithmetic and time of every block as a share of the first one's, so that they can be compared."""
    macs = evidence.manifest.gmacs.blocks or ()
    curves = {"multiply-accumulates": dict(enumerate(macs))}
    curves |= {f"time, {target}": dict(sorted(times.items())) for target, times in evidence.block_ms.items()}
    series = []
    for name, values in curves.items():
        first = next(iter(values.values()), 0)
        if first >= _LEAST:
            points = tuple((float(block), value / first) for block, value in values.items())
            series.append(Series(name=name, points=points))
    if not series:
        return ()
    title = "Arithmetic and time of each block, as a share of the first one's"
    return (
        LineChart(title=title, x_label="block", y_label="share of the first block", series=tuple(series)),
    )


def _block_table(evidence: Evidence) -> Table:
    schedule, gmacs = evidence.manifest.schedule, evidence.manifest.gmacs.blocks
    times, dropped = evidence.block_ms, schedule.dropped
    rows = (
        (
            *(str(block), str(before), str(merged)),
            *([str(dropped[block])] if dropped is not None else []),
            str(after),
            *([show.mmacs(gmacs[block])] if gmacs is not None else []),
            *(show.milliseconds(blocks.get(block)) for blocks in times.values()),
        )
        for block, (before, merged, after) in enumerate(
            zip(schedule.tokens, schedule.merged, schedule.left, strict=False)
        )
    )
    return Table(
        caption="Tokens in and out of each block",
        headings=(
            *("block", "tokens in", "merged"),
            *(["dropped"] if dropped is not None else []),
            "tokens out",
            *(["MMACs"] if gmacs is not None else []),
            *(f"ms, {target}" for target in times),
        ),
        rows=tuple(rows),
        texts=frozenset(),
    )


def _parity_section(manifest: Manifest) -> Section:
    title = "Parity"
    if not manifest.parity:
        return section(title, absent("Not verified against eager PyTorch."))
    rows = tuple(
        (
            target,
            "passed" if record.passed else "failed",
            show.error(record.max_abs_error),
            show.error(record.mean_abs_error),
            f"{record.cosine:.6f}",
            show.percent(100 * min(record.match_agreement)) if record.match_agreement else show.NOT_MEASURED,
        )
        for target, record in manifest.parity.items()
    )
    table = Table(
        caption="Engines against the rewritten program in eager PyTorch",
        headings=(
            *("target", "verdict", "largest error", "mean error", "least cosine"),
            "equal matches, worst block",
        ),
        rows=rows,
        texts=frozenset({0, 1}),
    )
    unverified = ", ".join(sorted(set(manifest.artifacts) - set(manifest.parity)))
    missing = [absent(f"Not verified: {unverified}.")] if unverified else []
    return section(title, table, *_agreement(manifest), *missing)


def _agreement(manifest: Manifest) -> tuple[Part, ...]:
    """Matches per block: one sentence where all agree, or else a table."""
    records = {
        target: record.match_agreement for target, record in manifest.parity.items() if record.match_agreement
    }
    if not records:
        return (absent("Agreement of the matches: not measured."),)
    if all(share == 1 for shares in records.values() for share in shares):
        return (Paragraph(text="Every engine merges the same tokens as eager PyTorch, in every block."),)
    merging = [block for block, removed in enumerate(manifest.schedule.removed) if removed]
    rows = tuple(
        (
            str(block),
            *(
                show.percent(100 * shares[place]) if place < len(shares) else "not executed"
                for shares in records.values()
            ),
        )
        for place, block in enumerate(merging)
    )
    caption = "Merges that eager PyTorch makes as well"
    return (Table(caption=caption, headings=("block", *records), rows=rows, texts=frozenset()),)


def _notes_section(manifest: Manifest) -> Section:
    notes = Listing(items=manifest.notes) if manifest.notes else Paragraph(text="No remarks from the export.")
    passes = Paragraph(text=f"Passes, in order: {', '.join(manifest.passes) or 'none'}.")
    return section("Remarks", notes, passes)


def _reproduction_section(evidence: Evidence) -> Section:
    manifest = evidence.manifest
    name = shlex.quote(manifest.name)
    recipe = shlex.quote(f"{manifest.name}/recipe.yaml")
    lines = (
        f"python -m exporter run {recipe} --out {shlex.quote(manifest.name + '-again')}",
        f"python -m exporter validate {name}",
        f"python -m exporter bench {name}",
        f"python -m exporter report {name}",
    )
    artifacts = Table(
        caption="Artifacts",
        headings=("target", "file", "precision", "opset", "sha256"),
        rows=tuple(
            (target, each.file, each.precision, str(each.opset or show.NOT_MEASURED), each.sha256[:16])
            for target, each in manifest.artifacts.items()
        ),
        texts=frozenset({0, 1, 2, 4}),
    )
    tensors = Facts(
        rows=(
            *((f"input {each.name}", _tensor(each.dtype, each.shape)) for each in manifest.inputs),
            *((f"output {each.name}", _tensor(each.dtype, each.shape)) for each in manifest.outputs),
            ("weights, sha256", manifest.model.weights.sha256),
            *(("version of " + package, version) for package, version in sorted(manifest.toolchain.items())),
            *_built_from(manifest),
        )
    )
    return section("How to reproduce", Commands(lines=lines), artifacts, tensors)


def _built_from(manifest: Manifest) -> list[tuple[str, str]]:
    """What identifies the engines whose bytes are not reproducible, and what their builds found out."""
    return [
        (f"{target}: {key.replace('_', ' ')}", str(value))
        for target, record in manifest.artifacts.items()
        for key, value in {**(record.built_from or {}), **(record.details or {})}.items()
        if isinstance(value, str | int | float)
    ]


def _tensor(dtype: str, shape: Sequence[int | str]) -> str:
    return f"{dtype} {show.TIMES.join(map(str, shape))}"
