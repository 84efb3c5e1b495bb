"""Run the command line the way a user does, and look at what it leaves on the disk."""

import io
import json
import os
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporter.bundle import seal
from exporter.bundle.manifest import decode
from exporter.cli import main

ROOT = Path(__file__).resolve().parents[2]

TINY = ("timm:test_vit", "--weights", "random", "--image-size", "64", "--model-option", "depth=2")
"""Words for the model that is quickest to export: 17 tokens, 2 blocks."""

MANIFEST_KEYS = {
    "schema_version",
    "name",
    "model",
    "method",
    "schedule",
    "gmacs",
    "inputs",
    "outputs",
    "preprocess",
    "artifacts",
    "parity",
    "toolchain",
}
"""What the contract promises of `manifest.json`, and so of `export --json` and `validate --json`."""

BUNDLE_FILES = (
    "manifest.json",
    "merges.npz",
    "model.onnx",
    "parity.json",
    "preprocess.json",
    "recipe.yaml",
    "sample.npz",
)
"""Of a bundle that merges and was not measured."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a command ended with."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """The one JSON document that stdout is."""
        tree = json.loads(self.out)
        assert isinstance(tree, dict)
        return tree

    @property
    def complaint(self) -> str:
        """The one line that stderr is, without its `error: `."""
        (line,) = self.err.splitlines()
        assert line.startswith("error: ")
        return line.removeprefix("error: ")


Build = Callable[..., Path]
"""Builds a bundle out of the words of a command, once per session, and gives its folder."""

FirstCommand = tuple[Outcome, Path]


def run(*words: str | Path) -> Outcome:
    """Run one command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        status = main([str(word) for word in words])
    return Outcome(status=status, out=out.getvalue(), err=err.getvalue())


def refused(status: int, *words: str | Path) -> str:
    """Run a command that has to fail with a status and one line on stderr; gives the line.

    `--quiet` leaves nothing on stderr but the failure.
    """
    outcome = run(*words, "--quiet")
    assert outcome.status == status, outcome.err
    assert outcome.out == ""
    assert "Traceback" not in outcome.err
    return outcome.complaint


def tree(folder: Path) -> dict[str, bytes | None]:
    """Every file below a folder with its bytes, and every folder with None."""
    found: dict[str, bytes | None] = {}
    for parent, folders, files in os.walk(folder):
        for name in folders:
            found[str((Path(parent) / name).relative_to(folder))] = None
        for name in files:
            path = Path(parent) / name
            found[str(path.relative_to(folder))] = path.read_bytes()
    return found


def manifest(bundle: Path) -> dict[str, Any]:
    """The parsed `manifest.json` of a bundle."""
    parsed = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    assert isinstance(parsed, dict)
    return parsed


def reseal(bundle: Path) -> None:
    """Hashes that fit whatever the bundle's files have become."""
    known = decode((bundle / "manifest.json").read_bytes(), "manifest.json")
    (bundle / "manifest.json").unlink()
    seal(bundle, known)
