"""The one place where pyarrow is imported: shards as Parquet files, and what their footers say.

Shapes: n rows of a shard, C numbers of a vector.
"""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from exporter.embed.row import Column, Row
from exporter.embed.table_columns import ERROR, PATH, RUNG
from exporter.errors import BundleError, TargetUnavailableError
from exporter.records import canonical_json, parse_json, record_from
from exporter.signature import Array

_KEY = b"exporter.embed"


@dataclass(frozen=True, kw_only=True)
class Footer:
    """What a shard's file says of itself.

    Attributes:
        plan: sha256 of the plan that it belongs to.
        bundle: digest of the bundle.
        exporter: version.
        shard: its number.
        rows: in it.
        errors: rows without a vector.
        first_error: the first of them, and why; None where there is none.
        given_up: whether it has no vector because it ended one worker after another.
    """

    plan: str
    bundle: str
    exporter: str
    shard: int
    rows: int
    errors: int
    first_error: str | None
    given_up: bool


@dataclass(frozen=True, kw_only=True)
class Vectors:
    """Vectors of rows.

    Attributes:
        name: of their column.
        values_nC: float32 or float16; zeros where there is none.
        reasons: of each row, why it has none; None where it has one.
        rungs: of each row, which engine of a ladder gave it; None where it has none, or there is no ladder.
    """

    name: str
    values_nC: Array
    reasons: list[str | None]
    rungs: list[str | None] | None = None


def load_library() -> tuple[Any, Any]:
    """The modules `pyarrow` and `pyarrow.parquet`.

    Raises:
        TargetUnavailableError: pyarrow is not installed, or does not load here.
    """
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise TargetUnavailableError(
            f'embed: {error}; install it with: pip install "exporter[embed]"'
        ) from error


def shard_bytes(rows: Sequence[Row], columns: Sequence[Column], vectors: Vectors, footer: Footer) -> bytes:
    """A shard as a Parquet file: path, vector (null without one), error, rung of a ladder, and the carried columns."""
    arrow, parquet = load_library()
    without = np.array([reason is not None for reason in vectors.reasons])
    length = vectors.values_nC.shape[1]
    rung = {} if vectors.rungs is None else {RUNG: arrow.array(vectors.rungs, type=arrow.string())}
    carried = {
        column.name: arrow.array([row.carried[place] for row in rows], type=_type(arrow, column.kind))
        for place, column in enumerate(columns)
    }
    table = arrow.table(
        {
            PATH: arrow.array([row.name for row in rows], type=arrow.string()),
            vectors.name: arrow.FixedSizeListArray.from_arrays(
                arrow.array(vectors.values_nC.reshape(-1)), length, mask=arrow.array(without)
            ),
            ERROR: arrow.array(vectors.reasons, type=arrow.string()),
            **rung,
            **carried,
        }
    ).replace_schema_metadata({_KEY: canonical_json(footer)})
    file = arrow.BufferOutputStream()
    repeated = [ERROR, *rung, *carried]  # vectors do not compress, and paths hardly repeat
    parquet.write_table(table, file, compression="none", use_dictionary=repeated)
    data: bytes = file.getvalue().to_pybytes()
    return data


def read_footer(path: Path) -> Footer | None:
    """What a shard's file says of itself; None if there is none, or it is no whole shard."""
    arrow, parquet = load_library()
    try:
        found = parquet.read_metadata(path)
        tree = parse_json((found.metadata or {}).get(_KEY, b""), str(path), "a footer", "")
        footer = record_from(Footer, tree, str(path), "")
    except (OSError, arrow.ArrowException, BundleError):
        return None
    return footer if footer.rows == found.num_rows else None


def _type(arrow: Any, kind: str) -> Any:
    return getattr(arrow, "bool_" if kind == "bool" else kind)()
