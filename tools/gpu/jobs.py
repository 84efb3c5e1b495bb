"""What is run, as one literal list, the most important first; no torch here.

Every job is a group of contenders that are timed against each other. The model in its library's own code, fp16, is one
of each group: what a user has today.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from exporter.forms import Forms, Precision
from exporter.models import ModelRequest
from exporter.schedule import ScheduleRequest

Kind = Literal["model", "model compile", "program", "compile", "aoti", "onnx", "trt", "torch-trt"]
"""The library's own module in eager PyTorch; `torch.compile` of it; the rewritten program in eager PyTorch;
`torch.compile` of that; the targets of those names, on the GPU."""

ENGINES: tuple[Kind, ...] = ("compile", "aoti", "onnx", "trt", "torch-trt")
"""Kinds that leave nothing to Python, by which the targets are judged. A program replayed from a CUDA graph counts
as well."""

BASELINE = "model dense fp16"


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model of the list.

    Attributes:
        title: for people.
        request: what is loaded; nothing is ever fetched.
    """

    title: str
    request: ModelRequest


MODELS = {
    "vit_b": Model(title="ViT-B/16", request=ModelRequest(model="vit_b16", weights="random")),
    "vit_l": Model(title="ViT-L/16", request=ModelRequest(model="vit_l16", weights="random")),
    "clip_l": Model(
        title="CLIP L/14",
        request=ModelRequest(model="timm:vit_large_patch14_clip_quickgelu_224.openai", weights="random"),
    ),
    "tiny": Model(title="vit_digits", request=ModelRequest(model="vit_digits")),
}
"""Random weights but for the tiny one, which ships: speed does not depend on them."""


@dataclass(frozen=True, kw_only=True)
class Merging:
    """A published setting: schedule and method."""

    schedule: ScheduleRequest
    method: str = "tome"


_KEEP_95 = ScheduleRequest(keep_per_layer=(0.95,) * 24)

MERGINGS = {
    "dense": Merging(schedule=ScheduleRequest()),
    **{f"r{r}": Merging(schedule=ScheduleRequest(r=r)) for r in (4, 7, 8, 13, 16)},
    "keep .95": Merging(schedule=_KEEP_95),
    "keep .95 pitome": Merging(schedule=_KEEP_95, method="pitome"),
}


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One way of running a model.

    Attributes:
        kind: what runs it.
        merging: a key of `MERGINGS`.
        precision: of the weights and the products.
        forms: the form of the program; None for the target's own, or the default.
    """

    kind: Kind
    merging: str = "dense"
    precision: Precision = "fp16"
    forms: Forms | None = None

    @property
    def name(self) -> str:
        """For people and for results; unique within a job."""
        form = f" {self.forms.mask}/{self.forms.selection}" if self.forms else ""
        return f"{self.kind} {self.merging} {self.precision}{form}"


@dataclass(frozen=True, kw_only=True)
class Job:
    """A group of contenders of one model at one batch size.

    Attributes:
        name: unique in its list.
        model: a key of `MODELS`.
        batch: images per call.
        contenders: in the order in which they are built.
        needs_s: what it takes at least; a job is not begun with less time left. A guess, until it has run.
        purpose: to time contenders against each other, or to list the kernels of each.
    """

    name: str
    model: str
    batch: int
    contenders: tuple[Contender, ...]
    needs_s: float
    purpose: Literal["time", "kernels"] = "time"


_MODEL = Contender(kind="model")


def _program(*mergings: str) -> tuple[Contender, ...]:
    return tuple(Contender(kind="program", merging=merging) for merging in mergings)


def _pair(kind: Kind, *mergings: str) -> tuple[Contender, ...]:
    """The baseline, and an engine with and without merging."""
    return (_MODEL, *(Contender(kind=kind, merging=merging) for merging in ("dense", *mergings)))


def _in(precision: Precision, contenders: Sequence[Contender]) -> tuple[Contender, ...]:
    return tuple(replace(each, precision=precision) for each in contenders)


_EAGER_B = (
    _MODEL,
    *_program("dense", "r13", "r8", "r16"),
    *_in("bf16", (_MODEL, *_program("dense", "r13"))),
    *_in("fp32", (_MODEL, *_program("dense", "r13"))),
)
_EAGER_L = (_MODEL, *_program("dense", "r8", "r7"), *_in("bf16", (_MODEL,)), *_in("fp32", (_MODEL,)))
_EAGER_CLIP = (
    _MODEL,
    *_program("dense", "keep .95", "keep .95 pitome"),
    *_in("bf16", (_MODEL,)),
    *_in("fp32", (_MODEL,)),
)
_KERNELS = (*_program("dense", "r13"), Contender(kind="compile", merging="r13"))
_COMPILED_B = (_MODEL, Contender(kind="model compile"), *_pair("compile", "r13")[1:])
_FORMS = (
    _MODEL,
    *_program("dense"),
    *(
        Contender(kind="program", merging="r13", forms=Forms(mask=mask, selection=selection))
        for mask in ("bias", "expanded", "folded")
        for selection in ("gather", "one-hot")
    ),
)


def _job(name: str, model: str, batch: int, contenders: tuple[Contender, ...], needs_s: float) -> Job:
    return Job(
        name=f"{name} {model} b{batch}", model=model, batch=batch, contenders=contenders, needs_s=needs_s
    )


def _kernels(model: str, batch: int, contenders: tuple[Contender, ...], needs_s: float) -> Job:
    return replace(_job("kernels", model, batch, contenders, needs_s), purpose="kernels")


FULL: tuple[Job, ...] = (
    # The three targets, on ViT-B, by whatever is cheap to build; then TensorRT, which ends at once where it is not.
    _job("eager", "vit_b", 64, _EAGER_B, 30),
    _job("eager", "vit_b", 1, _EAGER_B, 20),
    _job("trt", "vit_b", 64, _pair("trt", "r13"), 60),
    _job("trt", "vit_b", 1, _pair("trt", "r13"), 40),
    _job("compile", "vit_b", 64, _COMPILED_B, 45),
    _job("compile", "vit_b", 1, _COMPILED_B, 45),
    # Where the time goes, and which form of the program suits a GPU.
    _kernels("vit_b", 1, _KERNELS, 20),
    _kernels("vit_b", 64, _KERNELS, 20),
    _job("forms", "vit_b", 64, _FORMS, 20),
    _job("forms", "vit_b", 1, _FORMS, 20),
    _job("aoti", "vit_b", 64, _pair("aoti", "r13"), 60),
    _job("aoti", "vit_b", 1, _pair("aoti", "r13"), 60),
    _job("onnx", "vit_b", 64, _pair("onnx", "r13"), 40),
    _job("onnx", "vit_b", 1, _pair("onnx", "r13"), 40),
    # The large models, and the other batch sizes.
    _job("eager", "vit_l", 64, _EAGER_L, 25),
    _job("eager", "clip_l", 64, _EAGER_CLIP, 25),
    _job("eager", "vit_b", 256, _EAGER_B, 20),
    _job("eager", "vit_b", 8, _EAGER_B, 15),
    _job("eager", "vit_l", 1, _EAGER_L, 25),
    _job("eager", "clip_l", 1, _EAGER_CLIP, 25),
    _job("eager", "vit_l", 256, _EAGER_L, 25),
    _job("eager", "clip_l", 256, _EAGER_CLIP, 25),
    _job("eager", "vit_l", 8, _EAGER_L, 15),
    _job("eager", "clip_l", 8, _EAGER_CLIP, 15),
    # Engines again: the other settings, the large models, the other batch sizes.
    _job("compile 2", "vit_b", 64, _pair("compile", "r8", "r16"), 60),
    _job("trt 2", "vit_b", 64, _pair("trt", "r8", "r16"), 90),
    _job("trt", "vit_l", 64, _pair("trt", "r8", "r7"), 90),
    _job("trt", "clip_l", 64, _pair("trt", "keep .95", "keep .95 pitome"), 90),
    _job("compile", "vit_l", 64, _pair("compile", "r8"), 80),
    _job("compile", "clip_l", 64, _pair("compile", "keep .95"), 80),
    _job("compile", "vit_b", 256, _pair("compile", "r13"), 45),
    _job("compile", "vit_b", 8, _pair("compile", "r13"), 45),
    _job("torch-trt", "vit_b", 64, _pair("torch-trt", "r13"), 90),
    _job("torch-trt", "vit_b", 1, _pair("torch-trt", "r13"), 90),
    _job("trt", "vit_b", 256, _pair("trt", "r13"), 60),
    _job("trt", "vit_b", 8, _pair("trt", "r13"), 60),
    _job("aoti", "vit_l", 64, _pair("aoti", "r8"), 120),
    _job("aoti", "clip_l", 64, _pair("aoti", "keep .95"), 120),
    _job("onnx", "vit_l", 64, _pair("onnx", "r8"), 90),
    _job("onnx", "clip_l", 64, _pair("onnx", "keep .95"), 90),
    _job("trt", "vit_l", 1, _pair("trt", "r8"), 90),
    _job("trt", "clip_l", 1, _pair("trt", "keep .95"), 90),
    _job("compile", "vit_l", 1, _pair("compile", "r8"), 80),
    _job("compile", "clip_l", 1, _pair("compile", "keep .95"), 80),
    _job("aoti", "vit_b", 256, _pair("aoti", "r13"), 60),
    _job("aoti", "vit_b", 8, _pair("aoti", "r13"), 60),
    _job("onnx", "vit_b", 256, _pair("onnx", "r13"), 40),
    _job("onnx", "vit_b", 8, _pair("onnx", "r13"), 40),
)

TINY: tuple[Job, ...] = (
    _job("eager", "tiny", 2, (_MODEL, *_program("dense", "r4"), *_in("fp32", _program("dense", "r4"))), 2),
    _job("trt", "tiny", 2, _pair("trt", "r4"), 2),
    _job("onnx", "tiny", 2, _pair("onnx", "r4"), 2),
    _kernels("tiny", 2, _program("r4"), 2),
)
"""A model that anybody can run, for a dry run of the tool itself."""

TINY_COMPILED: tuple[Job, ...] = (
    _job("compile", "tiny", 2, (*_pair("compile", "r4"), Contender(kind="model compile")), 2),
    _job("aoti", "tiny", 2, _pair("aoti", "r4"), 2),
)
"""The same for what takes minutes on a small CPU."""

LISTS = {"full": FULL, "tiny": TINY, "tiny-compiled": TINY_COMPILED}
