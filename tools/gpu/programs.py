"""One model in the forms that its contenders need, each made once; in the process that builds."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from exporter.anatomy import Anatomy, examine
from exporter.benchmark import Device
from exporter.capture import EXAMPLE_BATCH, Program, capture
from exporter.forms import Forms, Precision
from exporter.graph.move import move
from exporter.models import LoadedModel, load
from exporter.reduction import method
from exporter.rewrite import RewriteOptions, RewrittenProgram, rewrite
from exporter.schedule import plan
from exporter.targets import Array
from exporter.targets.results import first_results
from exporter.validation import image_inputs
from tools.gpu.jobs import MERGINGS, MODELS

PICTURES = 8
"""Photos and noise images in turns; a larger batch repeats them, and so its outputs."""


@dataclass(kw_only=True)
class Programs:
    """Programs of one model, on the CPU.

    Attributes:
        name: a key of `MODELS`.
        device: that references are computed on.
    """

    name: str
    device: Device
    _made: dict[tuple[Any, ...], RewrittenProgram] = field(default_factory=dict)
    _references: dict[str, tuple[Array, ...]] = field(default_factory=dict)

    @cached_property
    def model(self) -> LoadedModel:
        """The model, in fp32."""
        return load(MODELS[self.name])

    @cached_property
    def _captured(self) -> tuple[Program, Anatomy]:
        example = self.model.example_input
        images = torch.zeros((EXAMPLE_BATCH, *example.shape), dtype=example.dtype)
        program = capture(self.model.module, images)
        return program, examine(program.graph_module)

    def images(self, batch: int) -> Array:
        """Real photos and noise in turns, as the model takes them: (batch, 3, H, W), float32."""
        count = (min(batch, PICTURES) + 1) // 2
        assert self.model.preprocess is not None
        inputs = image_inputs(self.model.preprocess, batch=count, as_bytes=False, channels_last=False)
        shown = [inputs["photo"], inputs["noise"]] if "photo" in inputs else [inputs["noise"]]
        pictures = np.stack(shown, axis=1).reshape(-1, *shown[0].shape[1:])
        return np.ascontiguousarray(pictures[np.arange(batch) % min(len(pictures), PICTURES)])

    def program(
        self, merging: str, precision: Precision, batch: int, forms: Forms | None = None
    ) -> RewrittenProgram:
        """The model under a merging (a key of `MERGINGS`), typed and in its forms, for one batch size."""
        key = (merging, precision, batch, forms)
        if key not in self._made:
            program, anatomy = self._captured
            asked = MERGINGS[merging]
            options = RewriteOptions(
                method=method(asked.method),
                proportional=self.model.proportional_attention,
                batch=batch,
                precision=precision,
                forms=forms or Forms(),
            )
            self._made[key] = rewrite(program, plan(asked.schedule, anatomy.geometry), options)
        return self._made[key]

    def expected(self, merging: str, images: Array) -> tuple[Array, ...]:
        """Outputs of the fp32 eager program on these images, which repeat the pictures."""
        pictures = images[:PICTURES]
        if (key := f"{merging} {len(pictures)}") not in self._references:
            program = self.program(merging, "fp32", len(pictures))
            results = self.run(program, pictures)[: program.outputs]
            self._references[key] = tuple(each.float().numpy() for each in results)
        return tuple(array[np.arange(len(images)) % len(array)] for array in self._references[key])

    def run(self, program: RewrittenProgram, images: Array) -> list[Tensor]:
        """Outputs and matches of a program that runs once on the device; on the CPU."""
        module = self.module(program.exported)
        with torch.inference_mode():
            return [each.cpu().clone() for each in module(torch.from_numpy(images).to(self.device))]

    def module(self, exported: ExportedProgram) -> nn.Module:
        """A program on the device; what its graph creates is created there as well."""
        return move(exported, self.device).module(check_guards=False)


def without_matches(program: RewrittenProgram) -> RewrittenProgram:
    """The same program without the matches that only validation reads: what is shipped, and so what is timed."""
    return replace(program, exported=first_results(program.exported, program.outputs), sites=())
