"""What every engine of a ladder says of the images that the ladder is certified on.

In: images, and compiled engines. Out: `Answers`, a few numbers per image. Equal images are counted once: a certificate
counts images that say something new.

Shapes: K engines, cheapest first; N images; B images of a chunk.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from exporter.ladder import values
from exporter.pipeline.compile import Compiled
from exporter.pipeline.contenders import as_input, dense_contender
from exporter.pipeline.ladder_goal import LadderGoal
from exporter.pipeline.observe import Observer
from exporter.targets import Array
from exporter.validation import ImageSet, best_answers, decode, default_workers, pair_cosines

_CHUNK = 64


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """Of images that can be read, each content once.

    Attributes:
        data: name of the images.
        fingerprint: of the images.
        values_KN: what the router reads of each engine but the last, (K - 1, N).
        differs_KN: whether each engine's answer is not the dense model's, bool (K, N).
        sizes_N: bytes per pixel of the images' files, (N,).
        repeated: images whose pixels are those of another one.
        unreadable: images that cannot be read.
    """

    data: str
    fingerprint: str
    values_KN: Array
    differs_KN: Array
    sizes_N: Array
    repeated: int
    unreadable: int


def answers(images: ImageSet, engines: Sequence[Compiled], goal: LadderGoal, observe: Observer) -> Answers:
    """Run the dense program in eager PyTorch and every engine over images.

    Args:
        images: to run over.
        engines: of the ladder, cheapest first.
        goal: by which their answers are judged.
        observe: receives the progress.
    """
    planned, count = engines[-1].planned, len(images.names)
    assert planned.model.preprocess is not None
    dense = dense_contender(planned)
    runners = [next(iter(each.runners.values())) for each in engines]
    seen, repeated, unreadable = set[bytes](), 0, 0
    read, differs, sizes = list[Array](), list[Array](), list[float]()
    decoded = decode(
        images,
        planned.model.preprocess,
        positions=range(count),
        chunk=_CHUNK,
        workers=default_workers(count),
    )
    with observe(f"run {images.name}") as note:
        for part in decoded:
            fresh = [place for place, pixels in enumerate(part.pixels_BCHW) if _is_new(pixels, seen)]
            repeated += len(part.positions) - len(fresh)
            unreadable += len(part.unreadable)
            note.progress(len(seen) + repeated + unreadable, count)
            if not fresh:
                continue
            pixels_BCHW = part.pixels_BCHW[fresh]
            given = as_input(planned.recipe, pixels_BCHW, planned.model.preprocess)
            outputs = [run(given) for run in runners]
            right_BC = dense(pixels_BCHW)
            read.append(np.stack([values(goal.router, each) for each in outputs[:-1]]))
            found = [next(iter(each.values())).astype(np.float32) for each in outputs]
            differs.append(np.stack([_differs(each, right_BC, goal.cosine) for each in found]))
            sizes += [images.bytes_per_pixel(part.positions[place]) for place in fresh]
        note(f"{len(seen)} images")
    return Answers(
        data=images.name,
        fingerprint=images.fingerprint,
        values_KN=np.concatenate(read, axis=1) if read else np.zeros((len(runners) - 1, 0)),
        differs_KN=np.concatenate(differs, axis=1) if differs else np.zeros((len(runners), 0), bool),
        sizes_N=np.array(sizes),
        repeated=repeated,
        unreadable=unreadable,
    )


def _is_new(pixels_CHW: Array, seen: set[bytes]) -> bool:
    digest = hashlib.sha256(pixels_CHW.tobytes()).digest()
    if digest in seen:
        return False
    seen.add(digest)
    return True


def _differs(own_BC: Array, right_BC: Array, cosine: float | None) -> Array:
    """An answer that is not finite is none, and agrees with nothing."""
    if cosine is not None:
        far_B: Array = pair_cosines(own_BC, right_BC) < cosine
        return far_B
    right_B = best_answers(right_BC)
    differs_B: Array = (best_answers(own_BC) != right_B) | (right_B < 0)
    return differs_B
