"""Opening a bundle: every byte is checked; then its engines, sample, preprocessing and recipe can be used."""

import errno
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from exporter.arrays import ArrayForm, read_archive
from exporter.bundle.extras import extra_names, extras_note
from exporter.bundle.file_names import MANIFEST_FILE
from exporter.bundle.leftovers import clear_leftovers
from exporter.bundle.locks import wait_for_writer
from exporter.bundle.manifest import MAX_MANIFEST_BYTES, Manifest, decode, short
from exporter.bundle.write import SAMPLE_FILE, check_name, sample_file, sha256_of
from exporter.errors import BundleError, UsageError, nearest
from exporter.records import LADDER_FILE, REDUNDANCY, LadderRecord, read_file
from exporter.signature import MASK, Array, Signature

if TYPE_CHECKING:
    from exporter.models import Preprocess
    from exporter.recipe import Recipe
    from exporter.targets import Runner

RECIPE_FILE = "recipe.yaml"
TEXT_FOLDER = "text"
SHORTER_FOLDER = "shorter"
CHEAPER_FOLDER = "cheaper"

_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A bundle whose files are all as they were written.

    Attributes:
        path: its folder.
        manifest: what it holds.
        extras: what else lies in its folder, such as a README; never read.
    """

    path: Path
    manifest: Manifest
    extras: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks on its folder, one line each."""
        note = extras_note(self.extras)
        return () if note is None else (note,)

    @property
    def signature(self) -> Signature:
        """Inputs and outputs of every engine, and of the model."""
        merges = self.manifest.tower == "text" and not self.manifest.schedule.is_dense
        masks = tuple(each.name for each in self.manifest.inputs if each.name == MASK) if merges else ()
        return Signature(inputs=self.manifest.inputs, outputs=self.manifest.outputs, masks=masks)

    def target_of(self, asked: str | None) -> str:
        """The target that was asked for, the only one, or `onnx`.

        Raises:
            UsageError: the bundle has no such target, or several and no `onnx`.
        """
        there = sorted(self.manifest.artifacts)
        if asked is None and len(there) != 1 and "onnx" not in there:
            raise UsageError(f"{self.path}: expected a --target, one of: {', '.join(there) or 'none'}")
        found = asked or (there[0] if len(there) == 1 else "onnx")
        self._check_target(found)
        return found

    def runner(self, target: str = "onnx") -> "Runner":
        """The engine of a target: numpy in, numpy out; it is loaded on first use, or by its `load`.

        Nothing that makes engines is imported: a machine that serves needs numpy, pydantic and the engine's
        own library.

        Raises:
            UsageError: the bundle has no such target.
            BundleError: the options that it records are not the target's.
        """
        self._check_target(target)
        from exporter.targets import open_runner

        return open_runner(
            target,
            self.path / self.manifest.artifacts[target].file,
            signature=self.signature,
            options=self.engine_options(target),
        )

    def encoder(self, target: str = "onnx", *, truncate: bool = False) -> "Callable[[Sequence[str]], Array]":
        """Texts in, their vectors or logits float (n, K) out, by a target's engine and the tokenizer of the bundle.

        Where there are engines for several lengths, each text runs on the shortest one that takes it.

        Args:
            target: whose engine.
            truncate: whether texts that are longer than the longest engine takes are cut off; otherwise they are
                refused.

        Raises:
            UsageError: the bundle has no such target, or takes no texts.
            BundleError: it holds no tokenizer.
        """
        from exporter.models import TOKENIZER_FILE, TextReader
        from exporter.targets import by_length

        if self.manifest.tower != "text":
            raise UsageError(f"{self.path}: this bundle takes {self.manifest.inputs[0].name}, not texts")
        names, length = tuple(each.name for each in self.manifest.inputs), self.manifest.inputs[0].shape[1]
        tokenizer = self._file(TOKENIZER_FILE).read_bytes()
        reader = TextReader(tokenizer, int(length), names, truncate)
        shorter = [each for each in self.lengths()[:-1] if target in each.manifest.artifacts]
        run = by_length([*(each.runner(target) for each in shorter), self.runner(target)])
        return lambda texts: next(iter(run(reader(texts)).values()))

    def runners(self) -> "dict[str, Runner]":
        """A runner for every engine, by target."""
        return {target: self.runner(target) for target in self.manifest.artifacts}

    def engine_options(self, target: str) -> Any:
        """The options that a target's engine was built with, in the target's own type.

        Raises:
            BundleError: they are not the target's.
        """
        recorded = self.manifest.artifacts[target].options
        if recorded is None:  # a bundle of before they were recorded
            return self.recipe().engines.get(target)
        from exporter.targets import options_from

        try:
            return options_from(target, recorded)
        except (TypeError, ValueError, UsageError) as error:
            raise BundleError(
                f"{self.path}: artifacts.{target}.options: {error}; export the bundle again"
            ) from None

    def sample(self, target: str | None = None) -> dict[str, npt.NDArray[Any]]:
        """The real input batch and the eager outputs for it, by name, inputs first.

        Args:
            target: whose outputs are to be compared with it; one that resolves a near-tie otherwise than eager PyTorch
                does has a sample of its own.

        Raises:
            BundleError: the bundle has no sample, or it does not hold what the manifest says of inputs and outputs.
        """
        own = sample_file(target)
        name = own if own in self.manifest.files else SAMPLE_FILE
        tensors = (*self.manifest.inputs, *self.manifest.outputs)
        forms = {each.name: ArrayForm(dtype=each.dtype, shape=each.shape) for each in tensors}
        return read_archive(self._file(name), forms, "export the bundle again")

    def text(self) -> "Bundle | None":
        """The bundle of the text tower that lies in this one, or None."""
        return self._inner(TEXT_FOLDER)

    def lengths(self) -> "tuple[Bundle, ...]":
        """The bundles for every length of a text that lie in this one, the shortest first, and itself."""
        shorter = self._inner(SHORTER_FOLDER)
        return (*(shorter.lengths() if shorter is not None else ()), self)

    def rungs(self) -> "tuple[Bundle, ...]":
        """The bundles of a ladder's engines that lie in this one, the cheapest first, and itself."""
        cheaper = self._inner(CHEAPER_FOLDER)
        return (*(cheaper.rungs() if cheaper is not None else ()), self)

    def ladder(self) -> LadderRecord | None:
        """What is known of the ladder whose last engine this bundle is; None of any other bundle.

        Raises:
            BundleError: it is of a newer exporter, or does not fit the engines.
        """
        if LADDER_FILE not in self.manifest.files:
            return None
        record = read_file(LadderRecord, self.path / LADDER_FILE, "build the ladder again")
        rungs = self.rungs()
        engines = [each.manifest.artifacts.get(record.target) for each in rungs]
        found = [None if each is None else each.sha256 for each in engines]
        read = {*self.signature.output_names, *((REDUNDANCY,) if record.router == REDUNDANCY else ())}
        lacking = any(read.difference(each.signature.output_names) for each in rungs[:-1])
        if lacking or found != [each.sha256 for each in record.rungs]:
            raise BundleError(f"{self.path}: {LADDER_FILE} is of other engines; build the ladder again")
        return record

    def _inner(self, folder: str) -> "Bundle | None":
        if f"{folder}/{MANIFEST_FILE}" not in self.manifest.files:
            return None
        prefix = f"{folder}/"
        known = {
            name.removeprefix(prefix): digest
            for name, digest in self.manifest.files.items()
            if name.startswith(prefix)
        }
        return _opened(self.path / folder, known)

    def preprocess(self) -> "Preprocess | None":
        """How an image becomes the input; None for a text tower."""
        from exporter.models import Preprocess

        tree = self.manifest.preprocess
        return None if tree is None else Preprocess.from_dict(tree)

    def recipe(self) -> "Recipe":
        """The recipe that this bundle was built from, without machine paths; `located` finds what it names.

        Raises:
            BundleError: the bundle has no recipe.
            RecipeError: the recipe is of a newer exporter.
        """
        from exporter.recipe import read_recipe

        return read_recipe(self._file(RECIPE_FILE))

    def _check_target(self, target: str) -> None:
        artifacts = self.manifest.artifacts
        if target not in artifacts:
            has = ", ".join(sorted(artifacts)) or "none"
            hint = nearest(target, artifacts)
            raise UsageError(f'{self.path}: no target "{target}"; this bundle has: {has}.{hint}')

    def _file(self, name: str) -> Path:
        if name not in self.manifest.files:
            raise BundleError(f"{self.path}: this bundle has no {name}")
        return self.path / name


def load_bundle(path: str | Path) -> Bundle:
    """Open a bundle after checking every file that its manifest lists, whatever links lead there.

    What else lies in its folder is left alone, and named in the bundle's notes.

    Raises:
        BundleError: not a bundle, of a newer exporter, or a file is missing, changed, or no file; the line names it,
            and expected and found hashes.
        UsageError: its path is not text in UTF-8.
    """
    path = Path(path)
    check_name(path)
    if not os.path.exists(path):
        clear_leftovers(path.absolute())  # which brings back a bundle that a killed run had set aside
    return _opened(path, {})


def _opened(path: Path, known: Mapping[str, str]) -> Bundle:
    """A bundle, checked; again if another command replaced it during the check.

    Hashes of files that were computed already need not be again.
    """
    first: Manifest | None = None
    try:
        first = read_manifest(path)
        return _checked(path, first, known)
    except BundleError:
        now = _settled(path)
        if now is None or now == first:
            raise
    return _checked(path, now, known)


def _settled(path: Path) -> Manifest | None:
    """The manifest once no other command is about to replace the bundle; None if there is none even then."""
    with suppress(OSError, ValueError, RuntimeError):  # a name that no file can have, or links in a circle
        wait_for_writer(path.resolve())
    with suppress(BundleError):
        return read_manifest(path)
    return None


def _checked(path: Path, manifest: Manifest, known: Mapping[str, str]) -> Bundle:
    if missing := [name for name in sorted(manifest.files) if _is_missing(path, name)]:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise BundleError(f"{path}: {missing[0]} is missing{more}; export the bundle again")
    _check_hashes(path, manifest.files, known)
    try:
        extras = extra_names(path, manifest.files)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error}") from None
    return Bundle(path=path, manifest=manifest, extras=extras)


def written_bundle(path: Path, manifest: Manifest) -> Bundle:
    """A bundle that this process has just written; nothing of it is read again."""
    return Bundle(path=path, manifest=manifest, extras=extra_names(path, manifest.files))


def recorded_weights_sha256(recipe_path: str | Path) -> str | None:
    """The hash of the weights that a bundle's recipe stands for, or None when the recipe lies in no bundle.

    A `recipe.yaml` keeps only the name of a weights file. A build from it compares the weights that
    were loaded with this hash, so that another file of the same name is not taken for the same model.

    Raises:
        BundleError: the manifest beside the recipe is damaged.
    """
    path = Path(recipe_path)
    if path.name != RECIPE_FILE or not (path.parent / MANIFEST_FILE).is_file():
        return None
    return read_manifest(path.parent).model.weights.sha256


def read_manifest(path: Path) -> Manifest:
    """What a bundle's folder says of itself; its other files are not looked at.

    Raises:
        BundleError: it is not a bundle's, of a newer exporter, or changed.
    """
    file = path / MANIFEST_FILE
    try:
        if _is_missing(path, MANIFEST_FILE):
            what = (
                "nothing there"
                if not path.exists()
                else "a folder without one"
                if path.is_dir()
                else "a file"
            )
            raise BundleError(f"{path}: expected a bundle folder with a {MANIFEST_FILE}, got {what}")
        with file.open("rb") as stream:
            data = stream.read(MAX_MANIFEST_BYTES)
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: cannot be read: {error}") from None
    return decode(data, str(file))


def _is_missing(folder: Path, name: str) -> bool:
    """Whether nothing is there under a name.

    Raises:
        BundleError: something is, and it is no file.
    """
    file = folder / name
    try:
        mode = file.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        if file.is_symlink():
            raise BundleError(f"{folder}: {name} is a link to something that is not there") from None
        return True
    except OSError as error:
        reason = (
            "is a link that leads back to itself"
            if error.errno == errno.ELOOP
            else f"cannot be read: {error}"
        )
        raise BundleError(f"{folder}: {name} {reason}") from None
    if not stat.S_ISREG(mode):
        raise BundleError(
            f"{folder}: {name}: expected a file, got {_KINDS.get(stat.S_IFMT(mode), 'a device')}"
        )
    return False


def _check_hashes(path: Path, files: Mapping[str, str], known: Mapping[str, str]) -> None:
    for name, expected in sorted(files.items()):
        try:
            got = known.get(name) or sha256_of(path / name)
        except OSError as error:
            raise BundleError(f"{path}: {name} cannot be read: {error}") from None
        if got != expected:
            raise BundleError(
                f"{path}: {name} has changed: expected sha256 {short(expected)}, got {short(got)}; "
                "export the bundle again"
            )
