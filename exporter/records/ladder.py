"""`ladder.json`: the engines of a ladder, which answers are kept, and what was certified and measured of it.

Shares are 0 to 1; of arithmetic they are shares of the dense model's multiply-accumulates.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from exporter.records.intervals import Ratio
from exporter.records.json_text import OMIT
from exporter.records.reading import STRICT

LADDER_FILE = "ladder.json"

REDUNDANCY = "redundancy"
"""The output that the router of this name reads, (B, 1)."""

Router = Literal["confidence", "redundancy"]
"""What an answer is kept by: `confidence`, of a classifier, the probability of the best class less that of the second;
`redundancy`, of an engine that gives vectors, how alike the tokens are that merge in its first blocks."""


def kept_by(router: Router) -> str:
    """What people call the value that a router compares with its threshold."""
    return "margin" if router == "confidence" else router


@dataclass(frozen=True, kw_only=True)
class RungRecord:
    """One engine.

    Attributes:
        name: what distinguishes it from the others, such as `tome-r8`, or `dense`.
        sha256: of its main file.
        gmacs: 1e9 multiply-accumulates that it executes per image.
        share: of the images of the certificate, whose answer is its.
        disagreements: images on which its answer is not the dense model's, used alone.
        bound: upper bound of the share of such images, used alone.
        images_per_s: alone, as measured; None where nothing was timed.
    """

    name: str
    sha256: str
    gmacs: float
    share: float
    disagreements: int
    bound: float
    images_per_s: float | None = field(default=None, metadata=OMIT)


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What is certain of a ladder: its answer is the dense model's on at least a share of images like these.

    A vector is the dense model's if its cosine to it is at least a limit.

    Attributes:
        agreement: the share that was asked for; None where a saving was asked for, and the agreement found.
        confidence: of the bound.
        data: name of the images.
        fingerprint: of the images.
        images: that count: readable ones, each content once.
        repeated: images left out, since their pixels are those of another one.
        unreadable: images left out, since they cannot be read.
        disagreements: images on which the ladder's answer is not the dense model's.
        bound: upper bound of the share of such images.
        cosine: the limit; None of classes.
    """

    agreement: float | None
    confidence: float
    data: str
    fingerprint: str
    images: int
    repeated: int
    unreadable: int
    disagreements: int
    bound: float
    cosine: float | None = field(default=None, metadata=OMIT)


@dataclass(frozen=True, kw_only=True)
class RoutedBySize:
    """The same engines, chosen by the size of an image's file alone, under the same certificate.

    Attributes:
        macs: expected multiply-accumulates per image, as a share of dense.
        disagreements: images on which its answer is not the dense model's.
    """

    macs: float
    disagreements: int


@dataclass(frozen=True, kw_only=True)
class LadderTiming:
    """Engines alone and together over the same images, one after another in one process.

    Attributes:
        images: in each call; those that need another engine are collected into its batches.
        images_per_s: of the ladder.
        speedup: how many times as fast as the last engine alone; 95 % interval over rounds.
    """

    images: int
    images_per_s: float
    speedup: Ratio


@dataclass(frozen=True, kw_only=True)
class LadderRecord:
    """Everything that `ladder.json` says.

    Attributes:
        schema_version: of this file.
        target: whose engines.
        router: what an answer is kept by.
        threshold: least value of it at which an answer is kept; the last engine's always is.
        rungs: cheapest first.
        certificate: of the ladder.
        macs: expected multiply-accumulates per image, as a share of dense.
        single: name of the cheapest engine that alone has the same agreement; None where none has.
        single_macs: its multiply-accumulates, as a share of dense.
        by_size: routing by file size with the same agreement; None where it cannot have it.
        timing: None where nothing was timed.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = STRICT

    schema_version: int = 1
    target: str
    router: Router
    threshold: float
    rungs: tuple[RungRecord, ...]
    certificate: Certificate
    macs: float
    single: str | None
    single_macs: float | None
    by_size: RoutedBySize | None
    timing: LadderTiming | None = field(default=None, metadata=OMIT)
