"""How far the tokens of a reduced program are from the dense model's, block by block, on the first images of a set."""

import numpy as np
import torch

from exporter.models import normalize
from exporter.pipeline.contenders import as_input
from exporter.pipeline.plan import Planned
from exporter.rewrite import RewrittenProgram
from exporter.targets import Array
from exporter.validation import Outputs, block_errors, decode

_IMAGES = 8


def error_growth(planned: Planned, program: RewrittenProgram, outputs: Outputs) -> dict[int, float]:
    """Relative error after the merge of every block that merges; empty where nothing does."""
    preprocess = planned.model.preprocess
    if not program.merging_blocks or planned.anatomy is None or preprocess is None:
        return {}
    pixels_BCHW = _first(outputs, planned)
    return block_errors(
        program,
        planned.program.graph_module,
        planned.anatomy,
        torch.from_numpy(as_input(planned.recipe, pixels_BCHW, preprocess)),
        torch.from_numpy(normalize(pixels_BCHW, preprocess)),
    )


def _first(outputs: Outputs, planned: Planned) -> Array:
    """The first images that could be read, as many as the program takes: (B, C, H, W) uint8."""
    assert planned.model.preprocess is not None
    positions = [int(position) for position in outputs.positions[:_IMAGES]]
    (chunk,) = decode(outputs.images, planned.model.preprocess, positions=positions, chunk=_IMAGES, workers=0)
    count = planned.program.fixed_batch or len(chunk.pixels_BCHW)
    return np.resize(chunk.pixels_BCHW, (count, *chunk.pixels_BCHW.shape[1:]))
