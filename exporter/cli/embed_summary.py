"""The result of `embed`: lines for people, one JSON document for scripts."""

from typing import Any

from rich.console import Console

from exporter.cli.terminal import say
from exporter.embed import Embedded
from exporter.records import to_tree


def outcome(embedded: Embedded) -> str:
    """What was done now, in one line."""
    found = f"{embedded.found} of {embedded.done.shards} shards were there" if embedded.found else ""
    rate = f"{embedded.images_per_s:.1f} images/s" if embedded.images_per_s is not None else ""
    return ", ".join(part for part in (rate, found) if part)


def embedded_tree(embedded: Embedded) -> dict[str, Any]:
    """The counts of `done.json`, and what this command did."""
    return {
        "out": str(embedded.out),
        **to_tree(embedded.done),
        "column": embedded.plan.output,
        "dtype": embedded.plan.dtype,
        "length": embedded.plan.length,
        "shards_found": embedded.found,
        "images_per_s": embedded.images_per_s,
        "notes": list(embedded.notes),
    }


def print_embedded(console: Console, embedded: Embedded) -> None:
    """Where the vectors are, how many, and what is missing."""
    done, plan = embedded.done, embedded.plan
    shards = "1 shard" if done.shards == 1 else f"{done.shards} shards"
    say(
        console,
        f"{embedded.out}: {done.embedded} vectors of {plan.length} {plan.dtype} numbers "
        f"(column {plan.output}) in {shards}",
    )
    if done.errors:
        say(console, f"{done.errors} images have no vector; the column error says why", "yellow")
    if done.given_up:
        numbers = ", ".join(map(str, done.given_up))
        say(console, f"given up, as each ended several processes: shards {numbers}", "yellow")
    for note in embedded.notes:
        say(console, f"note: {note}", "yellow")
