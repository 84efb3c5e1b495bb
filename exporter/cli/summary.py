"""Results of commands: tables and lines for people, one JSON document for scripts."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from exporter.bundle import Bundle
from exporter.cli.bench_summary import add_speed
from exporter.cli.measured_summary import add_measured, measured_tree
from exporter.cli.terminal import figures, say
from exporter.errors import ExportError
from exporter.pipeline import Exported, Planned, Validated, block_macs, gmacs, parity_record
from exporter.recipe import merging_name
from exporter.records import canonical_json, to_tree
from exporter.schedule import Schedule
from exporter.validation import ParityResult


def print_json(tree: object) -> None:
    """The one document on stdout."""
    print(json.dumps(tree, indent=2))


def exported_tree(exported: Exported) -> dict[str, Any]:
    """The manifest, where the bundle is, and accuracy if it was measured."""
    return {
        "bundle": str(exported.bundle.path),
        **_manifest_tree(exported.bundle),
        **_failures_tree(exported.failures),
        **measured_tree(exported.measured),
        **(
            {"bench": to_tree(exported.bench.record(merging_name(exported.compiled.recipe)))}
            if exported.bench is not None
            else {}
        ),
    }


def _failures_tree(failures: Mapping[str, ExportError]) -> dict[str, Any]:
    failed = {name: {"status": each.exit_status, "message": str(each)} for name, each in failures.items()}
    return {"failed": failed} if failed else {}


def validated_tree(validated: Validated) -> dict[str, Any]:
    """The manifest with parity as it is on this machine, and accuracy if it was measured."""
    exported = {target: each.match_agreement for target, each in validated.bundle.manifest.parity.items()}
    tree = {
        "bundle": str(validated.bundle.path),
        **_manifest_tree(validated.bundle),
        "parity": _parity_tree(validated.parity, exported),
    }
    if validated.shorter:
        tree["shorter"] = {str(length): _parity_tree(each, {}) for length, each in validated.shorter.items()}
    if validated.rungs:
        tree["rungs"] = {name: _parity_tree(each, {}) for name, each in validated.rungs.items()}
    return {**tree, **_failures_tree(validated.failures), **measured_tree(validated.measured)}


def _parity_tree(
    parity: Mapping[str, ParityResult], agreement: Mapping[str, tuple[float, ...]]
) -> dict[str, Any]:
    return {
        target: to_tree(parity_record(result, agreement.get(target, ()))) for target, result in parity.items()
    }


def print_exported(console: Console, exported: Exported) -> None:
    """The closing summary of an export."""
    manifest = exported.bundle.manifest
    lines = Table.grid(padding=(0, 2))
    if manifest.schedule.around:
        merging = sum(map(bool, manifest.schedule.merged))
        lines.add_row(
            "tokens", f"merged at {merging} of {len(manifest.schedule.merged)} attentions, and restored"
        )
    elif manifest.schedule.tokens:
        lines.add_row("tokens", f"{manifest.schedule.tokens[0]} to {manifest.schedule.tokens[-1]}")
    if (read := manifest.tokens_read) is not None:
        lines.add_row("read", f"{read.given} of {read.dense} tokens, by the other parts of {read.by}")
    counts = manifest.gmacs
    lines.add_row(
        "GMACs",
        f"{counts.dense:.4g} to {counts.reduced:.4g} ({counts.ratio:.2f}x fewer), {counts.executed:.4g} executed",
    )
    if manifest.lengths is not None:
        lines.add_row("lengths", ", ".join(map(str, manifest.lengths)))
    _add_parity(lines, exported.compiled.parity)
    if exported.compiled.rounding:
        block, error = max(exported.compiled.rounding.items(), key=lambda item: item[1])
        lines.add_row("rounding", f"relative error of the tokens at most {error:.1e}, in block {block}")
    add_measured(lines, exported.measured)
    if exported.bench is not None:
        add_speed(lines, exported.bench)
    lines.add_row("bundle", f"{exported.bundle.path} ({_folder_size(exported.bundle.path)})")
    console.print(manifest.name, style="bold")
    console.print(lines)
    _print_notes(console, manifest.notes)


def print_validated(console: Console, validated: Validated) -> None:
    """The closing summary of a validation."""
    lines = Table.grid(padding=(0, 2))
    lines.add_row("files", f"{len(validated.bundle.manifest.files) + 1} unchanged")
    for length, parity in validated.shorter.items():
        _add_parity(lines, parity, f", {length} tokens")
    for name, parity in validated.rungs.items():
        _add_parity(lines, parity, f", {name}")
    _add_parity(lines, validated.parity)
    add_measured(lines, validated.measured)
    console.print(validated.bundle.manifest.name, style="bold")
    console.print(lines)


def planned_tree(planned: Planned) -> dict[str, Any]:
    """What `inspect` knows."""
    tree: dict[str, Any] = {
        "model": {"source": planned.model.source, "id": planned.model.id},
        "schedule": _schedule_tree(planned.schedule),
    }
    if planned.anatomy is not None:
        counts = gmacs(planned, 0)
        tree |= {
            "tokens_protected": planned.anatomy.prefix,
            "head": planned.anatomy.head,
            "gmacs": {"dense": counts.dense, "reduced": counts.reduced, "ratio": counts.ratio},
            "blocks": _block_rows(planned),
            "refusals": [
                {
                    key: value
                    for key, value in asdict(each).items()
                    if value or key in ("node", "reason", "block")
                }
                for each in planned.refusals
            ],
        }
    return tree


def _schedule_tree(schedule: Schedule) -> dict[str, Any]:
    left_out = (("dropped",) if not any(schedule.dropped) else ()) + (() if schedule.around else ("around",))
    return {key: value for key, value in asdict(schedule).items() if key not in left_out}


def print_planned(console: Console, planned: Planned) -> None:
    """The table of `inspect`."""
    if planned.anatomy is None:
        console.print("a text tower is exported as it is: no blocks are merged")
        return
    words = ("attention", "merge point")
    drops = ("dropped",) if any(planned.schedule.dropped) else ()
    headings = ("block", "tokens in", "merged", *drops, "tokens out", "GMACs", *words)
    table = figures(f"{planned.model.name}: {planned.schedule.requested}", headings, words)
    for row in _block_rows(planned):
        table.add_row(*map(str, {**row, "gmacs": f"{row['gmacs']:.3f}"}.values()))
    counts = gmacs(planned, 0)
    console.print(table)
    console.print(
        f"GMACs {counts.dense:.3f} dense, {counts.reduced:.3f} reduced ({counts.ratio:.2f}x); "
        f"{planned.anatomy.prefix} protected prefix tokens; head reads {planned.anatomy.head}",
        highlight=False,
    )
    for refusal in planned.refusals:
        hint = " (restored with --outputs dense)" if refusal.restorable else ""
        said = f"refused to merge up to block {refusal.block}: node {refusal.node}: {refusal.reason}{hint}"
        say(console, said)
    _print_notes(console, (*planned.model.notes, *planned.schedule.notes))


def _print_notes(console: Console, notes: Iterable[str]) -> None:
    for note in notes:
        say(console, f"note: {note}", "yellow")


def _block_rows(planned: Planned) -> list[dict[str, Any]]:
    """By block; the key "dropped" only where the schedule drops any token."""
    assert planned.anatomy is not None
    tokens, dropped = planned.schedule.tokens, planned.schedule.dropped
    return [
        {
            "block": index,
            "tokens_in": tokens[index],
            "merged": planned.schedule.merged[index],
            **({"dropped": dropped[index]} if any(dropped) else {}),
            "tokens_out": planned.schedule.left[index],
            "gmacs": macs / 1e9,
            "attention": block.attention.name,
            "merge_point": block.merge_point.name,
        }
        for index, (block, macs) in enumerate(zip(planned.anatomy.blocks, block_macs(planned), strict=True))
    ]


def _add_parity(lines: Table, parity: Mapping[str, ParityResult], what: str = "") -> None:
    for target, result in parity.items():
        agreement = (
            f", {100 * min(result.match_agreement):.1f} % of matches agree in the worst block"
            if result.match_agreement
            else ""
        )
        tied = f"; near-ties resolved otherwise on: {', '.join(result.followed)}" if result.followed else ""
        lines.add_row(
            f"parity {target}{what}",
            f"max error {result.max_abs_error:.1e}, mean {result.mean_abs_error:.1e}, "
            f"cosine {result.cosine:.6f}{agreement}{tied}",
        )


def _manifest_tree(bundle: Bundle) -> dict[str, Any]:
    tree: dict[str, Any] = json.loads(canonical_json(bundle.manifest))
    return tree


def _folder_size(folder: Path) -> str:
    total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return f"{total / 1e6:.1f} MB"
