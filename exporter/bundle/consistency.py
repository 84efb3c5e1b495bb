"""Checks of a manifest beyond the types of its values: lengths that agree, counts in range, shapes, file names.

`manifest.decode` runs them, so that every `Manifest` that was read has passed.
"""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from exporter.bundle.file_names import is_file_name
from exporter.signature import TensorSpec

if TYPE_CHECKING:
    from exporter.bundle.manifest import Manifest

MOST_BLOCKS = 4096
_MOST_TOKENS = 2**31 - 1
_MOST_ELEMENTS = 2**31
"""Beyond this one input or output alone is larger than any engine takes."""

_DTYPES = ("float16", "bfloat16", "float32", "float64", "uint8", "int8", "int32", "int64", "bool")
_OPEN = "batch"


def complaints(manifest: "Manifest") -> Iterator[str]:
    """Every contradiction, as `key: expected X, got Y`."""
    yield from _of_schedule(manifest)
    for target, record in manifest.parity.items():
        if len(record.match_agreement) > len(manifest.schedule.merged):
            yield (
                f"parity.{target}.match_agreement: expected at most {len(manifest.schedule.merged)} shares, one per "
                f"block, got {len(record.match_agreement)}"
            )
    yield from _of_tensors(manifest)
    for name in manifest.files:
        if not is_file_name(name):
            yield f"files: expected a path inside the bundle, got {name[:60]!r}"
    for target, artifact in manifest.artifacts.items():
        if manifest.files.get(artifact.file) != artifact.sha256:
            yield f"artifacts.{target}: {artifact.file[:60]} is not among the bundle's files"


def _of_schedule(manifest: "Manifest") -> Iterator[str]:
    merged, tokens = manifest.schedule.merged, manifest.schedule.tokens
    blocks = manifest.gmacs.blocks
    if len(merged) > MOST_BLOCKS:
        yield f"schedule.merged: expected at most {MOST_BLOCKS} blocks, got {len(merged)}"
    if (merged or tokens) and len(tokens) != len(merged) + 1:
        yield f"schedule.tokens: expected {len(merged) + 1} counts, one more than blocks, got {len(tokens)}"
    if blocks is not None and len(blocks) != len(merged):
        yield f"gmacs.blocks: expected {len(merged)} numbers, one per block, got {len(blocks)}"
    yield from _range("schedule.merged", merged, 0)
    if manifest.schedule.dropped is not None:
        yield from _range("schedule.dropped", manifest.schedule.dropped, 0)
        if len(manifest.schedule.dropped) != len(merged):
            yield f"schedule.dropped: expected {len(merged)} counts, got {len(manifest.schedule.dropped)}"
    yield from _range("schedule.tokens", tokens, 1)
    yield from _range("tokens_protected", (manifest.tokens_protected,), 0)
    if (read := manifest.tokens_read) is not None and not 1 <= read.given <= read.dense:
        yield f"tokens_read: expected at least one token, and no more than {read.dense}, got {read.given}"
    numbers = (*(blocks or ()), manifest.gmacs.dense, manifest.gmacs.reduced, manifest.gmacs.executed)
    if negative := [number for number in numbers if number < 0]:
        yield f"gmacs: expected no negative number, got {negative[0]:g}"


def _range(key: str, values: Sequence[int], least: int) -> Iterator[str]:
    if odd := [value for value in values if not least <= value <= _MOST_TOKENS]:
        yield f"{key}: expected numbers from {least} to {_MOST_TOKENS}, got {odd[0]}"


def _of_tensors(manifest: "Manifest") -> Iterator[str]:
    for key in ("inputs", "outputs"):
        if not getattr(manifest, key):
            yield f"{key}: expected at least one, got none"
    names = [record.name for record in (*manifest.inputs, *manifest.outputs)]
    if len(set(names)) < len(names) or not all(names):
        yield "inputs and outputs: expected a name of its own for each"
    for key in ("inputs", "outputs"):
        for place, record in enumerate(getattr(manifest, key)):
            yield from _of_tensor(f"{key}[{place}]", record)


def _of_tensor(key: str, record: TensorSpec) -> Iterator[str]:
    if record.dtype not in _DTYPES:
        yield f"{key}.dtype: expected one of {', '.join(_DTYPES)}, got {record.dtype[:40]!r}"
    lengths = [length for place, length in enumerate(record.shape) if (place, length) != (0, _OPEN)]
    known = [length for length in lengths if isinstance(length, int) and 1 <= length <= _MOST_ELEMENTS]
    if len(known) != len(lengths) or not record.shape or math.prod(known) > _MOST_ELEMENTS:
        shown = ", ".join(str(length)[:20] for length in record.shape[:8])
        yield f'{key}.shape: expected lengths from 1, the first one or "{_OPEN}", got ({shown})'
