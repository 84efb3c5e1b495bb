"""The manifest: what a bundle holds, how it was made, and the hashes that show a change.

The pipeline fills it in from every stage's result, `write` seals it, `load` checks it. `manifest.json` is canonical
JSON: one value has one text, without timestamps or machine paths, so that a rebuild can be compared byte by byte and a
single changed byte is found, in the manifest as in every other file.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from operator import add, sub
from typing import ClassVar, Literal

from exporter.bundle.consistency import complaints
from exporter.bundle.file_names import is_file_name
from exporter.errors import BundleError, InternalError
from exporter.records import OMIT, STRICT, Calibrated, canonical_json, parse_json, record_from, to_tree
from exporter.signature import TensorSpec

MAX_MANIFEST_BYTES = 1 << 24
SCHEMA_VERSION = 1
_REMEDY = "export the bundle again"


@dataclass(frozen=True, kw_only=True)
class WeightsRecord:
    """Where the weights came from (`pretrained`, `random`, `file`, ...) and the hash of their values."""

    kind: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class ModelRecord:
    """The model: source (`timm`, `hf`, ...), its name there, and its weights."""

    source: str
    id: str
    weights: WeightsRecord


@dataclass(frozen=True, kw_only=True)
class ScheduleRecord:
    """What leaves each of L blocks.

    Attributes:
        requested: the request as a phrase.
        merged: tokens merged per block, length L.
        tokens: tokens that enter each block, then the final count, length L + 1.
        dropped: tokens dropped per block, length L; None where none is.
        around: true where the tokens of a block come back after its attention; None elsewhere.
    """

    requested: str
    merged: tuple[int, ...]
    tokens: tuple[int, ...]
    dropped: tuple[int, ...] | None = field(default=None, metadata=OMIT)
    around: bool | None = field(default=None, metadata=OMIT)

    @property
    def removed(self) -> tuple[int, ...]:
        """Tokens that leave each block, merged or dropped."""
        return self.merged if self.dropped is None else tuple(map(add, self.merged, self.dropped))

    @property
    def left(self) -> tuple[int, ...]:
        """Tokens of each block after its reduction."""
        return tuple(map(sub, self.tokens, self.removed))

    @property
    def is_dense(self) -> bool:
        """Whether no token leaves any block."""
        return not any(self.merged) and not any(self.dropped or ())


@dataclass(frozen=True, kw_only=True)
class TokensRead:
    """Tokens of an image that another model reads.

    Attributes:
        by: class of the checkpoint that the model is a part of.
        dense: how many without reduction.
        given: how many the engines give.
    """

    by: str
    dense: int
    given: int


@dataclass(frozen=True, kw_only=True)
class GmacsRecord:
    """1e9 multiply-accumulates per image: dense, reduced, their ratio, executed by the graph, per reduced block."""

    dense: float
    reduced: float
    ratio: float
    executed: float
    blocks: tuple[float, ...] | None = field(default=None, metadata=OMIT)


@dataclass(frozen=True, kw_only=True)
class ArtifactRecord:
    """An engine in the bundle.

    Attributes:
        file: its main file.
        precision: that it computes in.
        sha256: of the file; filled in when the bundle is sealed.
        opset: of an ONNX model.
        built_from: what identifies an engine whose bytes are not reproducible.
        details: what its build found out.
        options: of its target, that it was built with and is run with, without machine paths; None in bundles that do
            not say so here, but in their recipe.
    """

    file: str
    precision: str
    sha256: str = ""
    opset: int | None = field(default=None, metadata=OMIT)
    built_from: Mapping[str, str] | None = field(default=None, metadata=OMIT)
    details: Mapping[str, object] | None = field(default=None, metadata=OMIT)
    options: Mapping[str, object] | None = field(default=None, metadata=OMIT)


@dataclass(frozen=True, kw_only=True)
class ParityRecord:
    """An artifact against the eager program; `match_agreement` is the share of equal matches, per block."""

    max_abs_error: float
    mean_abs_error: float
    cosine: float
    match_agreement: tuple[float, ...]
    passed: bool


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything that `manifest.json` says.

    Attributes:
        schema_version: version of the bundle format.
        name: the bundle's name.
        model: source, name and weights.
        tower: `image` or `text`.
        method: how tokens are matched and merged.
        method_weights: where the tensors came from that the method reads besides the model's; None where it reads none.
        tokens_protected: prefix tokens that never merge.
        patch_grid: rows and columns of the patches, where square ones would not give them.
        schedule: tokens merged and left, per block.
        calibrated: what was chosen on images without labels; None where nothing was.
        dense_outputs: whether every original token has an entry again wherever one is needed for each; None where
            nothing of the kind was asked for.
        tokens_read: tokens that another model reads, such as a language model; None where none is known to.
        gmacs: arithmetic per image.
        input: `float` or `uint8`.
        layout: `nchw` or `nhwc`.
        lengths: tokens of a text, where there are engines for several lengths, ascending; those of the longest one lie
            in the bundle itself, and the others in its folder `shorter`, a bundle as well. None where there is one.
        inputs: inputs of every artifact.
        outputs: outputs of every artifact.
        preprocess: the content of `preprocess.json`; None for a text tower.
        passes: exact passes that ran, in order.
        artifacts: by target.
        parity: by target; an artifact without it was built and did not run.
        notes: visible lines, such as a schedule that was capped.
        toolchain: package versions.
        files: sha256 of every other file in the bundle; filled in when the bundle is sealed.
        digest: sha256 of the manifest without this key; filled in when the bundle is sealed.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = STRICT

    schema_version: int = SCHEMA_VERSION
    name: str
    model: ModelRecord
    tower: Literal["image", "text"]
    method: str
    method_weights: WeightsRecord | None = field(default=None, metadata=OMIT)
    tokens_protected: int
    patch_grid: tuple[int, ...] | None = field(default=None, metadata=OMIT)
    schedule: ScheduleRecord
    calibrated: Calibrated | None = field(default=None, metadata=OMIT)
    dense_outputs: bool | None = field(default=None, metadata=OMIT)
    tokens_read: TokensRead | None = field(default=None, metadata=OMIT)
    gmacs: GmacsRecord
    input: Literal["float", "uint8"]
    layout: Literal["nchw", "nhwc"]
    lengths: tuple[int, ...] | None = field(default=None, metadata=OMIT)
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    preprocess: Mapping[str, object] | None
    passes: tuple[str, ...]
    artifacts: Mapping[str, ArtifactRecord]
    parity: Mapping[str, ParityRecord]
    notes: tuple[str, ...]
    toolchain: Mapping[str, str]
    files: Mapping[str, str] = field(default_factory=dict)
    digest: str = ""

    @property
    def counted(self) -> str:
        """What an engine takes one or more of at a time: "images", or "texts"."""
        return "texts" if self.tower == "text" else "images"


def sealed(manifest: Manifest, files: Mapping[str, str]) -> Manifest:
    """The manifest with the hashes of a bundle's files and its own digest.

    Args:
        manifest: the manifest as the pipeline filled it in.
        files: sha256 by name, of every file in the bundle but the manifest.

    Raises:
        InternalError: an artifact is not among the files, or a file has a name that no bundle may hold.
    """
    if odd := [name for name in files if not is_file_name(name)]:
        raise InternalError(f"a bundle cannot hold a file named {odd[0]!r}")
    missing = [record.file for record in manifest.artifacts.values() if record.file not in files]
    if missing:
        raise InternalError(f"the bundle has no file {missing[0]}, which its manifest names as an artifact")
    artifacts = {
        target: replace(record, sha256=files[record.file]) for target, record in manifest.artifacts.items()
    }
    complete = replace(manifest, artifacts=artifacts, files=dict(files), digest="")
    return replace(complete, digest=digest_of(to_tree(complete)))


def encode(manifest: Manifest) -> bytes:
    """The bytes of `manifest.json`."""
    return canonical_json(manifest)


def decode(data: bytes, where: str) -> Manifest:
    """Reads the bytes of `manifest.json` back.

    Args:
        data: the file's content.
        where: the file, for messages.

    Raises:
        BundleError: not a manifest, changed since it was sealed, of a newer exporter, or with parts that contradict
            each other.
    """
    tree = parse_json(data, where, "a bundle's manifest", _REMEDY)
    if not isinstance(tree, dict):
        raise BundleError(f"{where}: expected a bundle's manifest, got a JSON {type(tree).__name__}")
    _refuse_newer(tree.get("schema_version"), where)
    expected, got = tree.get("digest"), digest_of(tree)
    if got != expected:
        difference = f"expected digest {short(expected)}, got {short(got)}"
        raise BundleError(f"{where}: changed since it was written: {difference}; {_REMEDY}")
    manifest = record_from(Manifest, tree, where, _REMEDY)
    if canonical_json(tree) != data:
        raise BundleError(f"{where}: changed since it was written: the values are right, the spelling is not")
    if found := next(complaints(manifest), None):
        raise BundleError(f"{where}: {found}; {_REMEDY}")
    return manifest


def short(digest: object) -> str:
    """The first digits of a sha256, for messages."""
    return f"{digest[:12]}..." if isinstance(digest, str) else "none"


def _refuse_newer(version: object, where: str) -> None:
    if type(version) is not int:
        raise BundleError(f"{where}: expected a bundle's manifest with a schema_version, got none")
    if version > SCHEMA_VERSION:
        raise BundleError(
            f"{where}: expected schema version {SCHEMA_VERSION} or older, got {version}; upgrade the exporter"
        )


def digest_of(tree: Mapping[str, object]) -> str:
    """The digest that a manifest with these keys must have: sha256 of its canonical JSON without `digest`."""
    return hashlib.sha256(canonical_json({key: tree[key] for key in tree if key != "digest"})).hexdigest()
