"""Images to pixels, as the model's own preprocessing makes them, in several processes and in bounded memory.

In: an `ImageSet` and a `Preprocess`. Out: chunks of pixels, in order. An image that cannot be decoded is named in its
chunk with the reason, and left out of the pixels; it ends nothing.
"""

import contextlib
import gc
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset

from exporter.errors import InternalError, UsageError
from exporter.images import pixels_or_reason
from exporter.machine import usable_cores
from exporter.models import Preprocess
from exporter.processes.interrupts import leave_terminal_to_parent
from exporter.records import Unreadable
from exporter.validation.image_set import ImageSet

# Each worker has at most this many chunks ready or in the making.
CHUNKS_AHEAD = 2

# Below this, decoding takes less time than starting processes.
WORTH_A_WORKER = 256
MOST_WORKERS = 8


@dataclass(frozen=True, kw_only=True)
class DecodedChunk:
    """Some images of a set.

    Attributes:
        positions: in the set, of those that could be read.
        pixels_BCHW: uint8, one for each of the positions; not normalised.
        unreadable: the others of the chunk.
    """

    positions: tuple[int, ...]
    pixels_BCHW: npt.NDArray[np.uint8]
    unreadable: tuple[Unreadable, ...]


def default_workers(images: int) -> int:
    """How many processes to decode in: none beside our own for a small set, else one per core up to 8."""
    return 0 if images < WORTH_A_WORKER else min(len(usable_cores()), MOST_WORKERS)


def decode(
    images: ImageSet, preprocess: Preprocess, *, positions: Sequence[int], chunk: int, workers: int
) -> Iterator[DecodedChunk]:
    """Decode images in order.

    At most `workers * CHUNKS_AHEAD` chunks are in memory beside the one that is handed out. Closing the iterator, or
    leaving it by Ctrl-C, ends the workers.

    Args:
        images: the set.
        preprocess: the model's own.
        positions: which images, in which order; a run that is resumed names the rest.
        chunk: images per chunk; the last may have fewer.
        workers: processes; 0 decodes in this one.

    Raises:
        InternalError: a chunk of no images, or a negative number of workers.
        UsageError: a worker was killed, as a system short of memory does.
    """
    if chunk < 1 or workers < 0:
        raise InternalError(
            f"expected at least one image per chunk and no negative workers: {chunk}, {workers}"
        )
    parts = [tuple(positions[start : start + chunk]) for start in range(0, len(positions), chunk)]
    chunks = _start(_loader(_Chunks(images, preprocess, parts), min(workers, len(parts))))
    try:
        yield from _reporting_dead_workers(chunks)
    finally:
        del chunks  # the last reference: ends its workers


def _start(loader: "DataLoader[DecodedChunk]") -> Iterator[DecodedChunk]:
    """Start the workers with a frozen heap, so that they do not collect this process's garbage.

    They are forks: if their garbage collector destroyed an engine's session, its destructor would wait without end for
    threads that a fork does not have.
    """
    if loader.num_workers == 0:
        return iter(loader)
    gc.collect()
    gc.freeze()
    try:
        return iter(loader)
    finally:
        gc.unfreeze()


class _Chunks(Dataset[DecodedChunk]):
    """Decodes the chunk at a place; runs in the workers."""

    def __init__(self, images: ImageSet, preprocess: Preprocess, parts: Sequence[tuple[int, ...]]) -> None:
        self.images = images
        self.preprocess = preprocess
        self.parts = parts

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, place: int) -> DecodedChunk:
        with _one_thread():
            return _decode_chunk(self.images, self.preprocess, self.parts[place])


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Resizing one photo on several threads is mostly waiting: ten times slower on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _decode_chunk(images: ImageSet, preprocess: Preprocess, part: tuple[int, ...]) -> DecodedChunk:
    pixels_BCHW = np.empty((len(part), *preprocess.input_shape), dtype=np.uint8)
    read: list[int] = []
    unreadable: list[Unreadable] = []
    for position in part:
        pixels = pixels_or_reason(partial(images.open, position), preprocess)
        if isinstance(pixels, str):
            unreadable.append(Unreadable(name=images.names[position], reason=pixels))
        else:
            pixels_BCHW[len(read)] = pixels
            read.append(position)
    return DecodedChunk(
        positions=tuple(read), pixels_BCHW=pixels_BCHW[: len(read)], unreadable=tuple(unreadable)
    )


def _loader(chunks: _Chunks, workers: int) -> "DataLoader[DecodedChunk]":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # more workers than cores are the caller's wish
        return DataLoader(
            chunks,
            batch_size=None,
            num_workers=workers,
            prefetch_factor=CHUNKS_AHEAD if workers else None,
            worker_init_fn=_start_worker,
            generator=torch.Generator(),  # its own: the loader draws a seed, and the global one is the caller's
        )


def _reporting_dead_workers(chunks: Iterator[DecodedChunk]) -> Iterator[DecodedChunk]:
    """As they come; the loader's complaint about a worker that died becomes one line."""
    while True:
        try:
            decoded = next(chunks)
        except StopIteration:
            return
        except RuntimeError as error:
            if "worker" not in str(error):
                raise
            raise UsageError(
                "data: a process that decodes images was killed, perhaps for want of memory; "
                "use fewer workers, or 0 to decode in one process"
            ) from error
        yield decoded


def _start_worker(_number: int) -> None:
    leave_terminal_to_parent()
