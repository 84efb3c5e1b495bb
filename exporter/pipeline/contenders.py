"""The dense model and the engines as `validation.collect` runs them: cropped pixels in, first output out."""

import numpy as np
import torch
from torch import Tensor, fx

from exporter.models import Preprocess, normalize
from exporter.pipeline.plan import Planned
from exporter.recipe import Recipe
from exporter.rewrite import RewrittenProgram
from exporter.targets import Array, Run
from exporter.validation import Contender


def dense_contender(planned: Planned) -> Contender:
    """The captured dense program in eager PyTorch."""
    preprocess = planned.model.preprocess
    assert preprocess is not None

    def run(pixels_BCHW: Array) -> Array:
        images = torch.from_numpy(normalize(pixels_BCHW, preprocess))
        with torch.no_grad():
            parts = [planned.program.graph_module(part)[0] for part in _batches(images, planned)]
        outputs: Array = torch.cat(parts)[: len(images)].float().numpy()
        return outputs

    return run


def reduced_contender(planned: Planned, program: RewrittenProgram) -> Contender:
    """The rewritten program in eager PyTorch, as it is before its second capture: for any number of images."""
    preprocess = planned.model.preprocess
    assert preprocess is not None

    def run(pixels_BCHW: Array) -> Array:
        images = torch.from_numpy(as_input(planned.recipe, pixels_BCHW, preprocess))
        with torch.no_grad():
            parts = [fx.Interpreter(program.merging).run(part)[0] for part in _batches(images, planned)]
        outputs: Array = torch.cat(parts)[: len(images)].float().numpy()
        return outputs

    return run


def engine_contender(recipe: Recipe, runner: Run, preprocess: Preprocess) -> Contender:
    """An engine; it gets what its recipe says that it takes."""

    def run(pixels_BCHW: Array) -> Array:
        return next(iter(runner(as_input(recipe, pixels_BCHW, preprocess)).values())).astype(np.float32)

    return run


def as_input(recipe: Recipe, pixels_BCHW: Array, preprocess: Preprocess) -> Array:
    """Cropped pixels as the recipe's engines take them: bytes or normalised floats, NCHW or NHWC."""
    given = pixels_BCHW if recipe.input == "uint8" else normalize(pixels_BCHW, preprocess)
    return np.ascontiguousarray(given.transpose(0, 2, 3, 1)) if recipe.layout == "nhwc" else given


def _batches(images: Tensor, planned: Planned) -> tuple[Tensor, ...]:
    """All images at once, or in batches of the only size that a saved program takes, the last one padded."""
    size = planned.program.fixed_batch
    if size is None:
        return (images,)
    missing = -len(images) % size
    padded = torch.cat((images, images[-1:].expand(missing, *images.shape[1:])))
    batches: tuple[Tensor, ...] = padded.split(size)
    return batches
