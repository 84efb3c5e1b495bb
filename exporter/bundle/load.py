"""Opening a bundle: every byte checked, then engine, sample, preprocessing and recipe at hand.

Where it stands on the road: the way back in, for `validate`, `bench` and whoever serves the engine.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from exporter.bundle.manifest import MANIFEST_FILE, Manifest, TensorRecord, decode, short
from exporter.bundle.write import SAMPLE_FILE, sample_file, sha256_of
from exporter.errors import BundleError, UsageError, nearest

if TYPE_CHECKING:
    from exporter.models import Preprocess
    from exporter.recipe import Recipe
    from exporter.targets import Runner, TensorSpec

RECIPE_FILE = "recipe.yaml"
TEXT_FOLDER = "text"

_MAX_MANIFEST_BYTES = 1 << 24


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle whose files are all as they were written.

    Attributes:
        path: its folder.
        manifest: what it holds.
    """

    path: Path
    manifest: Manifest

    def runner(self, target: str = "onnx") -> "Runner":
        """The engine of a target: numpy in, numpy out; it is loaded on first use, or by its `load`.

        Raises:
            UsageError: the bundle has no such target.
        """
        artifacts = self.manifest.artifacts
        if target not in artifacts:
            has = ", ".join(sorted(artifacts)) or "none"
            hint = nearest(target, artifacts)
            raise UsageError(f'{self.path}: no target "{target}"; this bundle has: {has}.{hint}')
        from exporter.targets import open_runner

        return open_runner(
            target,
            self.path / artifacts[target].file,
            input=_spec(self.manifest.inputs[0]),
            outputs=tuple(_spec(record) for record in self.manifest.outputs),
            options=self.recipe().engines.get(target),
        )

    def sample(self, target: str | None = None) -> dict[str, npt.NDArray[Any]]:
        """The real input batch and the eager outputs for it, by name, inputs first.

        Args:
            target: whose outputs are to be compared with it; one that resolves a near-tie otherwise than eager PyTorch
                does has a sample of its own.

        Raises:
            BundleError: the bundle has no sample, or it is not a plain archive of arrays.
        """
        own = sample_file(target)
        name = own if own in self.manifest.files else SAMPLE_FILE
        try:
            with np.load(self._file(name), allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        except (ValueError, OSError) as error:
            raise BundleError(f"{self.path / name}: cannot be read: {error}") from None

    def text(self) -> "Bundle | None":
        """The bundle of the text tower that lies in this one, or None."""
        inner = f"{TEXT_FOLDER}/{MANIFEST_FILE}"
        return load_bundle(self.path / TEXT_FOLDER) if inner in self.manifest.files else None

    def preprocess(self) -> "Preprocess | None":
        """How an image becomes the input; None for a text tower."""
        from exporter.models import Preprocess

        tree = self.manifest.preprocess
        return None if tree is None else Preprocess.from_dict(tree)

    def recipe(self) -> "Recipe":
        """The recipe that this bundle was built from, without machine paths.

        Raises:
            BundleError: the bundle has no recipe.
            RecipeError: the recipe is of a newer exporter.
        """
        from exporter.recipe import load_recipe

        return load_recipe(self._file(RECIPE_FILE))

    def _file(self, name: str) -> Path:
        if name not in self.manifest.files:
            raise BundleError(f"{self.path}: this bundle has no {name}")
        return self.path / name


def load_bundle(path: str | Path) -> Bundle:
    """Open a bundle after checking every file in it against the manifest.

    Raises:
        BundleError: not a bundle, of a newer exporter, or a file is missing, extra, changed or a link; the
            line names the file, and expected and found hashes.
    """
    path = Path(path)
    manifest = _read_manifest(path)
    found = set(_files_below(path))
    expected = set(manifest.files)
    if missing := sorted(expected - found):
        raise BundleError(f"{path}: {missing[0]} is missing{_more(missing)}; export the bundle again")
    if extra := sorted(found - expected - {MANIFEST_FILE}):
        raise BundleError(f"{path}: {extra[0]} is not in the manifest{_more(extra)}; move it elsewhere")
    _check_hashes(path, manifest.files)
    return Bundle(path=path, manifest=manifest)


def recorded_weights_sha256(recipe_path: str | Path) -> str | None:
    """The hash of the weights that a bundle's recipe stands for, or None when the recipe lies in no bundle.

    A `recipe.yaml` keeps only the name of a weights file. Whoever builds from it compares the weights that
    were loaded with this hash, so that another file of the same name is not taken for the same model.

    Raises:
        BundleError: the manifest beside the recipe is damaged.
    """
    path = Path(recipe_path)
    if path.name != RECIPE_FILE or not (path.parent / MANIFEST_FILE).is_file():
        return None
    return _read_manifest(path.parent).model.weights.sha256


def _read_manifest(path: Path) -> Manifest:
    file = path / MANIFEST_FILE
    try:
        if file.is_symlink():
            raise BundleError(f"{path}: {MANIFEST_FILE} is a symbolic link; a bundle holds plain files only")
        if not file.is_file():
            raise BundleError(f"{path}: expected a bundle folder with a {MANIFEST_FILE}, got {_what(path)}")
        with file.open("rb") as stream:
            data = stream.read(_MAX_MANIFEST_BYTES)
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: cannot be read: {error}") from None
    return decode(data, str(file))


def _what(path: Path) -> str:
    if path.is_dir():
        return "a folder without one"
    return "a file" if path.exists() else "nothing there"


def _files_below(folder: Path, prefix: str = "") -> Iterator[str]:
    """Names of all files in a folder, depth first; nothing is followed out of it."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise BundleError(f"{folder}: cannot be read: {error}") from None
    for entry in entries:
        name = prefix + entry.name
        if entry.is_symlink():
            raise BundleError(f"{folder}: {name} is a symbolic link; a bundle holds plain files only")
        if entry.is_dir(follow_symlinks=False):
            yield from _files_below(Path(entry.path), f"{name}/")
        elif entry.is_file(follow_symlinks=False):
            yield name
        else:
            raise BundleError(f"{folder}: {name} is not a plain file")


def _check_hashes(path: Path, files: Mapping[str, str]) -> None:
    for name, expected in sorted(files.items()):
        try:
            got = sha256_of(path / name)
        except OSError as error:
            raise BundleError(f"{path}: {name} cannot be read: {error}") from None
        if got != expected:
            raise BundleError(
                f"{path}: {name} has changed: expected sha256 {short(expected)}, got {short(got)}; "
                "export the bundle again"
            )


def _more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def _spec(record: TensorRecord) -> "TensorSpec":
    from exporter.targets import TensorSpec

    return TensorSpec(name=record.name, dtype=record.dtype, shape=record.shape)
