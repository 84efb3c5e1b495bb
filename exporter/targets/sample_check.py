"""What every script shares that builds an engine on another machine and verifies it on the bundle's sample.

`write_script` copies this module's code into the script: only the standard library and numpy are imported here.
"""

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np


class Failure(Exception):
    """What ends the run: the exit status, and one line."""


def check_files(name: str, files: Iterable[Path], expected: str) -> None:
    """Raise `Failure` unless the contents of these files, one after the other, have this sha256."""
    found = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    if found != expected:
        raise Failure(8, f"{name}: expected sha256 {expected}, got {found}; copy it again")


def read_sample(
    bundle: Path, recipe: Mapping[str, Any], inputs: list[str]
) -> tuple[dict[str, Any], dict[str, float]]:
    """Inputs and eager outputs by name, as many rows as the engine takes, and the tolerances.

    Args:
        bundle: its folder.
        recipe: `artifact`, a key of `parity.json`; `samples`, file names, of which the first that is there counts;
            `outputs`, names; `batches`, numbers of rows that the engine takes, in order.
        inputs: names.
    """
    try:
        path = next(path for name in recipe["samples"] if (path := bundle / name).exists())
        arrays = _read_arrays(path, [*inputs, *recipe["outputs"]])
        parity = json.loads((bundle / "parity.json").read_text(encoding="utf-8"))
        tolerances = parity[recipe["artifact"]]["tolerances"]
    except (OSError, ValueError, KeyError, StopIteration) as error:
        raise Failure(
            8, f"{bundle}: its sample or parity.json cannot be read: {error!r}; copy it again"
        ) from error
    count, batches = len(arrays[inputs[0]]), recipe["batches"]
    rows = np.arange(max(batches[0], min(batches[-1], count))) % count
    return {name: array[rows] for name, array in arrays.items()}, tolerances


def _read_arrays(path: Path, names: list[str]) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in names}
    except Exception as error:  # zipfile, zlib and numpy raise nearly anything on damaged files
        raise Failure(8, f"{path.name}: cannot be read: {str(error)[:80]}; copy it again") from None


def shortfalls(got: Any, expected: Any, allowed: Mapping[str, float]) -> list[str]:
    """What an output (B, ...) misses its tolerances by; errors may grow with the magnitude of what is expected."""
    if got.shape != expected.shape or not (np.isfinite(got).all() and np.isfinite(expected).all()):
        return [f"expected finite numbers {expected.shape}, got {got.shape} or not-a-numbers"]
    one, other = (array.astype(np.float64).reshape(len(array), -1) for array in (got, expected))
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    same = (one == other).all(axis=1)
    cosine = np.where(norms > 0, (one * other).sum(axis=1) / np.maximum(norms, 1e-300), same).min()
    scale = max(1.0, np.abs(other).max())
    errors = {"max_abs_error": np.abs(one - other).max(), "mean_abs_error": np.abs(one - other).mean()}
    limits = {key: allowed[key] * scale for key in errors}
    wrong = [
        f"{key} {errors[key]:.3g} above {limits[key]:.3g}" for key in errors if errors[key] > limits[key]
    ]
    return wrong + (
        [] if cosine >= allowed["cosine"] else [f"cosine {cosine:.6f} below {allowed['cosine']:g}"]
    )


def write(path: Path, content: Any) -> None:
    """Replace a file at once."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    os.replace(partial, path)


def run(description: str, build: Callable[[Path], str], bundle: Path) -> int:
    """Parse the command line, build into the folder asked for, print the verdict or what failed; the exit status.

    Args:
        description: of the script.
        build: builds and verifies into a folder; the verdict in one line.
        bundle: where nothing may be written.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--out", type=Path, default=Path("engine"), help="folder to write into; default: ./engine"
    )
    out = parser.parse_args().out.resolve()
    try:
        if bundle in (out, *out.parents):
            fix = f"--out {bundle.parent / f'{bundle.name}-engine'}"
            raise Failure(
                2, f"--out: {out} is in the bundle, which is sealed; expected a folder outside: {fix}"
            )
        print(build(out))
        return 0
    except Failure as failure:
        status, message = failure.args
    except OSError as error:
        status, message = 2, f"--out: {out} cannot be written: {error}"
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return int(status)
