"""How many tokens images need in each block, of a method that keeps another number of each: do the slots suffice?"""

from collections.abc import Iterator

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
    found = [needed_tokens(program, images) for images in _inputs(planned, outputs)]
    count = min(_IMAGES, len(outputs.positions))
    tokens = planned.schedule.tokens
    return tuple(
        _need(block, tokens[block + 1], torch.cat([each[block] for each in found])[:count])
        for block in program.merging_blocks
    )


def _inputs(planned: Planned, outputs: Outputs) -> Iterator[Tensor]:
    """The first images as the program takes them, in chunks; the last one of a fixed batch is filled up."""
    preprocess, fixed = planned.model.preprocess, planned.program.fixed_batch
    assert preprocess is not None
    positions = [int(position) for position in outputs.positions[:_IMAGES]]
    for chunk in decode(outputs.images, preprocess, positions=positions, chunk=fixed or _CHUNK, workers=0):
        pixels_BCHW = chunk.pixels_BCHW
        count = fixed or len(pixels_BCHW)
        full_BCHW = np.resize(pixels_BCHW, (count, *pixels_BCHW.shape[1:]))
        yield torch.from_numpy(as_input(planned.recipe, full_BCHW, preprocess))


def _need(block: int, slots: int, needed_n: Tensor) -> SlotNeed:
    return SlotNeed(
        block=block,
        slots=slots,
        n=len(needed_n),
        overflow=100 * float((needed_n > slots).double().mean()),
        most=int(needed_n.max()),
        nearly_all=int(np.quantile(needed_n.numpy(), 0.999, method="higher")),
    )
