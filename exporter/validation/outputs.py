"""What every contender says about every image, kept on the disk chunk by chunk, so that a stopped run goes on.

In: an `ImageSet` and contenders. Out: `Outputs`, which the metrics read as a stream. Neither the images nor the outputs
of all of them are ever in memory at once.

Shapes: B images of a chunk, C outputs of an image.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from exporter.arrays import ArrayForm, read_array
from exporter.errors import UsageError
from exporter.models import Preprocess
from exporter.records import Unreadable
from exporter.targets import Array
from exporter.validation.decoding import DecodedChunk, decode
from exporter.validation.image_set import ImageSet

CHUNK = 64
"""Images decoded, run and stored together."""

Contender = Callable[[Array], Array]
"""Takes cropped uint8 pixels (B, C, H, W), gives float32 (B, C), or (B, T, C) and the like where outputs are dense."""

_REMEDY = "remove it, and measure again"

Progress = Callable[[int, int], None]
"""Called with images done and images in all."""


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """Stored outputs over a set of images.

    Attributes:
        images: the set.
        folder: where the chunks lie.
        rows: images of each chunk that could be read.
        positions: of the images that could be read, in order.
        unreadable: the others, each with its reason.
        images_per_s: of contenders that ran just now; what was there already is not timed again.
    """

    images: ImageSet
    folder: Path
    rows: tuple[int, ...]
    positions: Array
    unreadable: tuple[Unreadable, ...]
    images_per_s: Mapping[str, float]

    @property
    def labels(self) -> Array | None:
        """Class index of every image that could be read, int64, or None where there are no labels."""
        return None if self.images.labels is None else np.asarray(self.images.labels)[self.positions]

    def of(self, contender: str) -> Iterator[Array]:
        """Outputs of a contender, float32 (B, ...) per chunk, in the order of `positions`."""
        for chunk in range(len(self.rows)):
            if self.rows[chunk]:
                form = ArrayForm(dtype="float32", shape=(self.rows[chunk], "channels", "..."))
                yield read_array(_output_file(self.folder, contender, chunk), form, _REMEDY)

    def stacked(self, contender: str) -> Array:
        """All outputs of a contender at once, for embeddings: float32 (N, C)."""
        return np.concatenate(list(self.of(contender)))


def collect(
    images: ImageSet,
    preprocess: Preprocess,
    contenders: Mapping[str, Contender],
    folder: Path,
    *,
    workers: int = 0,
    progress: Progress = lambda done, total: None,
) -> Outputs:
    """Run contenders over images, as far as their outputs are not stored yet.

    Args:
        images: to run over.
        preprocess: of the model.
        contenders: by name; all see the same pixels.
        folder: a store that belongs to these images, this model and these contenders.
        workers: processes that decode; 0 decodes in this one.
        progress: told after every chunk.

    Raises:
        UsageError: not one image can be read.
    """
    total = len(images.names)
    starts = range(0, total, CHUNK)
    missing = [chunk for chunk, _ in enumerate(starts) if not _is_stored(folder, contenders, chunk)]
    positions = [
        place for chunk in missing for place in range(chunk * CHUNK, min((chunk + 1) * CHUNK, total))
    ]
    seconds = dict.fromkeys(contenders, 0.0)
    done = timed = 0
    decoded = decode(images, preprocess, positions=positions, chunk=CHUNK, workers=workers)
    for chunk, part in zip(missing, decoded, strict=True):
        _run(folder, contenders, chunk, part, seconds)
        timed += len(part.positions)
        done += len(part.positions) + len(part.unreadable)
        progress(total - len(positions) + done, total)
    return _outputs(
        images, folder, len(starts), {name: timed / spent for name, spent in seconds.items() if spent}
    )


def _run(
    folder: Path,
    contenders: Mapping[str, Contender],
    chunk: int,
    part: DecodedChunk,
    seconds: dict[str, float],
) -> None:
    for name, contender in contenders.items():
        file = _output_file(folder, name, chunk)
        if file.is_file():
            continue
        started = time.perf_counter()
        outputs = contender(part.pixels_BCHW) if part.positions else np.zeros((0, 0))
        seconds[name] += time.perf_counter() - started
        _write(file, partial(np.save, arr=outputs.astype(np.float32)))
    listing = json.dumps(
        {"positions": part.positions, "unreadable": [[each.name, each.reason] for each in part.unreadable]}
    )
    _write(_listing_file(folder, chunk), partial(Path.write_text, data=listing, encoding="utf-8"))


def _outputs(images: ImageSet, folder: Path, chunks: int, images_per_s: Mapping[str, float]) -> Outputs:
    listings = [
        json.loads(_listing_file(folder, chunk).read_text(encoding="utf-8")) for chunk in range(chunks)
    ]
    positions = [place for listing in listings for place in listing["positions"]]
    unreadable = tuple(
        Unreadable(name=name, reason=reason) for listing in listings for name, reason in listing["unreadable"]
    )
    if not positions:
        first = f"; the first: {unreadable[0].name}: {unreadable[0].reason}" if unreadable else ""
        raise UsageError(
            f"data: expected images in {images.name}, got {len(unreadable)} that cannot be read{first}"
        )
    return Outputs(
        images=images,
        folder=folder,
        rows=tuple(len(listing["positions"]) for listing in listings),
        positions=np.asarray(positions, dtype=np.int64),
        unreadable=unreadable,
        images_per_s=images_per_s,
    )


def _is_stored(folder: Path, contenders: Mapping[str, Contender], chunk: int) -> bool:
    files = [_listing_file(folder, chunk), *(_output_file(folder, name, chunk) for name in contenders)]
    return all(file.is_file() for file in files)


def _output_file(folder: Path, contender: str, chunk: int) -> Path:
    return folder / contender / f"{chunk:06}.npy"


def _listing_file(folder: Path, chunk: int) -> Path:
    return folder / "images" / f"{chunk:06}.json"


def _write(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file that is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"unfinished-{path.name}")
    write(unfinished)
    os.replace(unfinished, path)
