"""The plan of a run: what is embedded by what, in which shards. Written first; a run goes on with its own only.

In: a bundle's engine and a `Source`. Out: a `Plan`, whose shards can be read from the source again, one after another.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import ClassVar, Literal

from exporter.embed.row import Column, Row, Source
from exporter.errors import UsageError, quoted
from exporter.records import STRICT, canonical_json

PLAN_FILE = "plan.json"
Dtype = Literal["float32", "float16"]

_FINGERPRINT_DIGITS = 16
_SHARDS = 64
_MOST_IN_A_SHARD = 4096


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run is.

    Attributes:
        schema_version: of this file.
        exporter: version.
        bundle: its name.
        digest: of its manifest.
        target: whose engine.
        output: of the engine.
        length: numbers of a vector.
        dtype: of the vectors.
        columns: that are carried along.
        shard: rows in each, but the last.
        rows: in all.
        shards: fingerprint of the rows of each: their names, and size and time of change of their files.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = STRICT

    schema_version: int = 1
    exporter: str
    bundle: str
    digest: str
    target: str
    output: str
    length: int
    dtype: Dtype
    columns: tuple[Column, ...]
    shard: int
    rows: int = 0
    shards: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """A sha256 that only equal plans have."""
        return hashlib.sha256(canonical_json(self)).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Task:
    """A shard to embed: its number and its rows."""

    shard: int
    rows: tuple[Row, ...]


def shard_size(source: Source, images: int) -> int:
    """Images in each shard where none was asked for: about a 64th of all, and at most 4096.

    It follows from the data and the engine alone, so that a stopped run goes on anywhere.

    Args:
        source: of the rows, of which no more are read than matter.
        images: of a call of the engine; a shard is a multiple.
    """
    largest = max(1, _MOST_IN_A_SHARD // images)
    rows = sum(1 for _ in islice(source.rows(), _SHARDS * largest * images))
    return images * min(largest, max(1, -(-rows // (_SHARDS * images))))


def over_all_rows(plan: Plan, source: Source) -> Plan:
    """A plan completed with the rows of a source; reads it once."""
    count, shards = 0, list[str]()
    for rows in batched(source.rows(), plan.shard):
        count += len(rows)
        shards.append(fingerprint(rows))
    if not count:
        raise UsageError(f"data: {quoted(source.name)}: expected images, got none")
    return replace(plan, rows=count, shards=tuple(shards))


def tasks(plan: Plan, source: Source, finished: Iterable[int]) -> Iterator[Task]:
    """The shards of a plan that are not finished, read from the source again.

    Raises:
        UsageError: the data are no longer those of the plan.
    """
    done = set(finished)
    shards = enumerate(batched(source.rows(), plan.shard))
    for number, expected in enumerate(plan.shards):
        rows = next(shards, (number, ()))[1]
        if fingerprint(rows) != expected:
            raise UsageError(
                f"data: {quoted(source.name)}: {_changed(plan, number)} while it was being embedded"
            )
        if number not in done:
            yield Task(shard=number, rows=rows)


def check_same(there: Plan, asked: Plan, out: Path) -> None:
    """Whether the plan in a folder is the one that is asked for.

    Raises:
        UsageError: it is another one; the line says in what.
    """
    for what, expected, got in _differences(there, asked):
        raise UsageError(
            f"{quoted(out)}: holds a run with another {what}: expected {expected}, got {got}; repeat the command of "
            "that run, or give another --out"
        )


def batched(rows: Iterator[Row], size: int) -> Iterator[tuple[Row, ...]]:
    """The rows in groups, of which the last may be smaller."""
    while group := tuple(islice(rows, size)):
        yield group


def fingerprint(rows: Iterable[Row]) -> str:
    """The first digits of a sha256 over rows: names, parts, sizes and times of change, carried values."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(repr((row.name, row.part, row.stamp, row.carried)).encode())
    return digest.hexdigest()[:_FINGERPRINT_DIGITS]


def _differences(there: Plan, asked: Plan) -> Iterator[tuple[str, object, object]]:
    words = {
        "exporter": "version of the exporter",
        "digest": "bundle (digest)",
        "target": "target",
        "output": "output",
        "dtype": "dtype",
        "rows": "number of images",
        "shard": "shard size",
    }
    for name, what in words.items():
        if getattr(there, name) != getattr(asked, name):
            yield what, _shown(getattr(there, name)), _shown(getattr(asked, name))
    if there.columns != asked.columns:
        first, second = (
            ",".join(f"{each.name}:{each.kind}" for each in plan.columns) or "none" for plan in (there, asked)
        )
        yield "choice of carried columns", first, second
    for number, (first, second) in enumerate(zip(there.shards, asked.shards, strict=False)):
        if first != second:
            yield f"state of the data ({_changed(there, number)})", f"fingerprint {first}", second
    if there != asked:
        yield "plan", there.key[:_FINGERPRINT_DIGITS], asked.key[:_FINGERPRINT_DIGITS]


def _shown(value: object) -> str:
    return quoted(value, 40)


def _changed(plan: Plan, shard: int) -> str:
    first = shard * plan.shard + 1
    return f"images {first} to {min(first + plan.shard - 1, plan.rows)} changed"
