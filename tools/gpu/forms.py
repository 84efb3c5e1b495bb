"""Models and programs in the forms that contenders ask for, each made once; in the worker.

Programs are rewritten for one batch size each, as engines are: with a free batch axis it takes three times as long.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.passes import move_to_device_pass

from exporter.anatomy import Anatomy, examine
from exporter.capture import EXAMPLE_BATCH, Program, capture
from exporter.errors import InternalError
from exporter.forms import Forms, Precision
from exporter.models import LoadedModel, load
from exporter.reduction import method
from exporter.rewrite import RewriteOptions, RewrittenProgram, rewrite
from exporter.schedule import plan
from exporter.targets import Array
from exporter.targets.results import first_results
from exporter.validation import image_inputs, tensor_inputs
from tools.gpu.jobs import MERGINGS, MODELS

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

PICTURES = 8
"""Photos and noise images in turns; a larger batch repeats them, and so its outputs."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What eager PyTorch in fp32 makes of the pictures under a merging.

    Attributes:
        outputs: of the model, a row per picture.
        records: the match of every merging block.
    """

    outputs: tuple[Array, ...]
    records: tuple[Tensor, ...]

    def expected(self, batch: int) -> tuple[Array, ...]:
        """The outputs of a batch that repeats the pictures."""
        return tuple(array[np.arange(batch) % len(array)] for array in self.outputs)


@dataclass(kw_only=True)
class MadeForms:
    """Everything that was loaded, captured and rewritten so far.

    Attributes:
        device: that programs are run on; they are made on the CPU.
    """

    device: str
    _models: dict[str, LoadedModel] = field(default_factory=dict)
    _captures: dict[tuple[str, int], tuple[Program, Anatomy]] = field(default_factory=dict)
    _programs: dict[tuple[Any, ...], RewrittenProgram] = field(default_factory=dict)
    _references: dict[tuple[str, str, int], Reference] = field(default_factory=dict)

    def keep_only(self, model: str) -> None:
        """Forget all other models: memory is for one at a time, and a list of jobs stays with one for a while."""
        for cache in (self._captures, self._programs, self._references):
            for key in [key for key in cache if key[0] != model]:
                del cache[key]
        for name in [name for name in self._models if name != model]:
            del self._models[name]

    def model(self, name: str) -> LoadedModel:
        """The model of that name, on the CPU, in fp32."""
        if name not in self._models:
            self._models[name] = load(MODELS[name].request)
        return self._models[name]

    def images(self, name: str, batch: int) -> Array:
        """Real photos and noise in turns, as the model takes them: (batch, 3, H, W), float32."""
        loaded = self.model(name)
        count = (min(batch, PICTURES) + 1) // 2
        if loaded.preprocess is None:
            inputs = tensor_inputs(loaded.example_input, batch=count)
        else:
            inputs = image_inputs(loaded.preprocess, batch=count, as_bytes=False, channels_last=False)
        shown = [inputs["photo"], inputs["noise"]] if "photo" in inputs else [inputs["noise"]]
        pictures = np.stack(shown, axis=1).reshape(-1, *shown[0].shape[1:])
        return np.ascontiguousarray(pictures[np.arange(batch) % min(len(pictures), PICTURES)])

    def program(
        self, name: str, merging: str, precision: Precision, batch: int, forms: Forms | None = None
    ) -> RewrittenProgram:
        """A model under a merging, typed and lowered, for one batch size, on the CPU.

        Args:
            name: of the model.
            merging: a key of `MERGINGS`.
            precision: that it computes in.
            batch: images per call.
            forms: its form.
        """
        forms = forms or Forms()
        key = (name, merging, precision, batch, forms)
        if key not in self._programs:
            program, anatomy = self._captured(name, batch)
            asked = MERGINGS[merging]
            options = RewriteOptions(
                method=method(asked.method),
                proportional=self.model(name).proportional_attention,
                batch=batch,
                precision=precision,
                forms=forms,
            )
            self._programs[key] = rewrite(program, plan(asked.schedule, anatomy.geometry), options)
        return self._programs[key]

    def reference(self, name: str, merging: str, images: Array) -> Reference:
        """The fp32 eager program on the pictures that a batch repeats."""
        count = min(len(images), PICTURES)
        key = (name, merging, count)
        if key not in self._references:
            program = self.program(name, merging, "fp32", count)
            results = self.run_whole(program, images[:count])
            self._references[key] = Reference(
                outputs=tuple(each.float().numpy() for each in results[: program.outputs]),
                records=tuple(results[program.outputs :]),
            )
        return self._references[key]

    def run_whole(self, program: RewrittenProgram, images: Array) -> list[Tensor]:
        """Outputs and matches of a program that is run once on the device and forgotten; on the CPU."""
        module = self.module(program.exported)
        with torch.inference_mode():
            return [each.cpu().clone() for each in module(torch.from_numpy(images).to(self.device))]

    def module(self, exported: ExportedProgram) -> nn.Module:
        """A program on the device; what its graph creates is created there as well."""
        whole = len(exported.graph_signature.output_specs)
        own = first_results(exported, whole)  # a copy: moving one is done in place
        if self.device != "cpu":
            own = move_to_device_pass(own, self.device)
        return own.module(check_guards=False)

    def _captured(self, name: str, batch: int) -> tuple[Program, Anatomy]:
        """Captured with a free batch axis; where torch.export cannot, once per batch size."""
        free = self._captures.get((name, 0))
        if free is not None and (free[0].fixed_batch is None):
            return free
        if (name, batch) not in self._captures:
            example = self.model(name).example_input
            wanted = EXAMPLE_BATCH if free is None else batch
            program = capture(
                self.model(name).module, torch.zeros((wanted, *example.shape), dtype=example.dtype)
            )
            found = (program, examine(program.graph_module))
            self._captures[name, 0 if free is None else batch] = found
            return self._captured(name, batch)
        found = self._captures[name, batch]
        if found[0].fixed_batch not in (None, batch):
            raise InternalError(f"{name} was captured for {found[0].fixed_batch} images, not for {batch}")
        return found


def without_matches(program: RewrittenProgram) -> RewrittenProgram:
    """The same program without the matches that only a proof reads: what is shipped, and so what is timed."""
    return replace(program, exported=first_results(program.exported, program.outputs), merging_blocks=())
