"""How many tokens images need in each block, of a method that keeps another number of each: do the slots suffice?"""

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from exporter.pipeline.contenders import as_input
from exporter.pipeline.plan import Planned
from exporter.records import SlotNeed
from exporter.rewrite import RewrittenProgram
from exporter.validation import Outputs, decode, needed_tokens

_IMAGES = 512
_CHUNK = 32


def slot_needs(planned: Planned, program: RewrittenProgram, outputs: Outputs) -> tuple[SlotNeed, ...]:
    """Count on the first images of a set; empty for a method that keeps as many tokens of every image."""
    if program.method.needed is None or not program.merging_blocks or planned.model.preprocess is None:
        return ()
    needed = needed_of(program, _inputs(planned, outputs), planned.program.fixed_batch)
    tokens = planned.schedule.tokens
    return tuple(slot_need(block, tokens[block + 1], counts_n) for block, counts_n in needed.items())


def needed_of(
    program: RewrittenProgram, inputs: Iterable[Tensor], fixed_batch: int | None
) -> dict[int, Tensor]:
    """How many tokens every image needs of every block that reduces them: int64 (n,).

    Args:
        program: of a method that has such a number.
        inputs: images as the program takes them, (B, ...) each.
        fixed_batch: the only batch that the program takes, None if it takes any; the last one is filled up.
    """
    found: dict[int, list[Tensor]] = {block: [] for block in program.merging_blocks}
    for images in inputs:
        for part in images.split(fixed_batch or len(images)):
            filled = part[torch.arange(fixed_batch or len(part)) % len(part)]
            for block, counts_B in needed_tokens(program, filled).items():
                found[block].append(counts_B[: len(part)])
    return {block: torch.cat(parts) for block, parts in found.items()}


def slot_need(block: int, slots: int, needed_n: Tensor) -> SlotNeed:
    """What images need of a block, against the slots that it has."""
    return SlotNeed(
        block=block,
        slots=slots,
        n=len(needed_n),
        overflow=100 * float((needed_n > slots).double().mean()),
        most=int(needed_n.max()),
        nearly_all=int(np.quantile(needed_n.numpy(), 0.999, method="higher")),
    )


def _inputs(planned: Planned, outputs: Outputs) -> Iterator[Tensor]:
    """The first images as the program takes them, in chunks."""
    preprocess = planned.model.preprocess
    assert preprocess is not None
    positions = [int(position) for position in outputs.positions[:_IMAGES]]
    for chunk in decode(outputs.images, preprocess, positions=positions, chunk=_CHUNK, workers=0):
        yield torch.from_numpy(as_input(planned.recipe, chunk.pixels_BCHW, preprocess))
