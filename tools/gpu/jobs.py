"""The list of what is raced, the most important first; no torch here.

A job is one race: several ways of running one model at one batch size. The model in its library's own code in fp16,
which is what a user has today, is part of each.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from exporter.benchmark.contender import Kind as ContenderKind
from exporter.forms import Forms, Precision
from exporter.models import ModelRequest
from exporter.schedule import ScheduleRequest

Kind = Literal["model", "model compile", "program", "compile", "aoti", "onnx", "trt", "torch-trt"]
"""The library's own module in eager PyTorch; `torch.compile` of it; the rewritten program in eager PyTorch;
`torch.compile` of that; the targets of those names, on the GPU."""

RACED_AS: Mapping[Kind, ContenderKind] = {
    "model": "module",
    "model compile": "compiled",
    "program": "program",
    "compile": "compiled",
}
"""How the race calls the kinds that PyTorch runs; the others are engines."""

MODELS = {
    "vit_b": ModelRequest(model="vit_b16", weights="random"),
    "vit_l": ModelRequest(model="vit_l16", weights="random"),
    "clip_l": ModelRequest(model="timm:vit_large_patch14_clip_quickgelu_224.openai", weights="random"),
    "tiny": ModelRequest(model="vit_digits"),
}
"""Random weights except for the tiny one, which ships: speed does not depend on them, and nothing is downloaded."""


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
class Way:
    """One way of running a model.

    Attributes:
        kind: what runs it.
        merging: a key of `MERGINGS`.
        precision: of the weights and the products.
        forms: the forms of the program; None for the target's own, or the default.
        graph: whether PyTorch's kernels are replayed from a CUDA graph; left out on a CPU.
    """

    kind: Kind
    merging: str = "dense"
    precision: Precision = "fp16"
    forms: Forms | None = None
    graph: bool = False

    @property
    def name(self) -> str:
        """Unique within a job."""
        forms = f" {self.forms.mask}/{self.forms.selection}" if self.forms else ""
        return f"{self.kind} {self.merging} {self.precision}{forms}{' graph' if self.graph else ''}"

    @property
    def is_engine(self) -> bool:
        """Whether nothing of a call is left to Python's operators, and the products are in 16 bits."""
        eager = self.kind in ("model", "model compile") or (self.kind == "program" and not self.graph)
        return not eager and self.precision != "fp32"

    def is_dense_form_of(self, other: "Way") -> bool:
        """Whether the two differ in merging alone, and this one is dense; forms matter only where tokens merge."""
        return replace(other, merging="dense", forms=self.forms) == self and self.forms in (None, other.forms)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One race.

    Attributes:
        name: unique in its list.
        model: a key of `MODELS`.
        batch: images per call.
        ways: the contenders, in the order in which they are built.
        kernels: whether the kernels of each PyTorch contender are listed.
    """

    name: str
    model: str
    batch: int
    ways: tuple[Way, ...]
    kernels: bool = False


BASELINE = Way(kind="model")


def _job(label: str, model: str, batch: int, *ways: Way, kernels: bool = False) -> Job:
    return Job(
        name=f"{label} {model} b{batch}", model=model, batch=batch, ways=(BASELINE, *ways), kernels=kernels
    )


def _pair(kind: Kind, *mergings: str, graph: bool = False) -> tuple[Way, ...]:
    """A kind without merging, and with."""
    return tuple(Way(kind=kind, merging=merging, graph=graph) for merging in ("dense", *mergings))


_FORMS = tuple(
    Way(kind="program", merging="r13", forms=Forms(mask=mask, selection=selection), graph=True)
    for mask in ("bias", "expanded", "folded")
    for selection in ("gather", "one-hot")
)
_PRECISIONS = tuple(
    replace(way, precision=precision)
    for precision in ("bf16", "fp32")
    for way in (BASELINE, *_pair("program", "r13"))
)
_LARGE = {"vit_l": ("r8",), "clip_l": ("keep .95",)}

FULL: tuple[Job, ...] = (
    # The targets on ViT-B, at both ends of the batch size: what is cheap to build first.
    *(_job("eager", "vit_b", batch, *_pair("program", "r13", graph=True), kernels=True) for batch in (64, 1)),
    *(_job("trt", "vit_b", batch, *_pair("trt", "r13")) for batch in (64, 1)),
    *(_job("compile", "vit_b", batch, *_pair("compile", "r13"), kernels=True) for batch in (64, 1)),
    *(_job("forms", "vit_b", batch, *_pair("program", graph=True), *_FORMS) for batch in (64, 1)),
    *(_job(kind, "vit_b", batch, *_pair(kind, "r13")) for kind in ("aoti", "onnx") for batch in (64, 1)),
    # The large models, other settings and precisions, launched kernel by kernel, the library's model compiled.
    *(_job("eager", model, 64, *_pair("program", *merged, graph=True)) for model, merged in _LARGE.items()),
    *(_job("trt", model, 64, *_pair("trt", *merged)) for model, merged in _LARGE.items()),
    _job("settings", "vit_b", 64, *_pair("program", "r8", "r16", graph=True)),
    _job("settings", "vit_l", 64, *_pair("program", "r7", graph=True)),
    _job("settings", "clip_l", 64, *_pair("program", "keep .95 pitome", graph=True)),
    _job("launched", "vit_b", 64, *_pair("program", "r13"), *_PRECISIONS),
    _job("launched", "vit_b", 1, *_pair("program", "r13"), Way(kind="model compile")),
    # Other batch sizes and engines.
    *(_job("eager", "vit_b", batch, *_pair("program", "r13", graph=True)) for batch in (256, 8)),
    *(_job("trt", "vit_b", batch, *_pair("trt", "r13")) for batch in (256, 8)),
    *(_job("torch-trt", "vit_b", batch, *_pair("torch-trt", "r13")) for batch in (64, 1)),
    *(
        _job(kind, model, batch, *_pair(kind, *merged))
        for kind in ("compile", "aoti", "onnx")
        for model, merged in _LARGE.items()
        for batch in (64, 1)
    ),
    *(_job("eager", model, batch, *_pair("program", *merged, graph=True))
      for model, merged in _LARGE.items() for batch in (256, 8, 1)),
)  # fmt: skip

TINY: tuple[Job, ...] = (
    _job("eager", "tiny", 2, *_pair("program", "r4"), *_pair("program", "r4", graph=True), kernels=True),
    _job("trt", "tiny", 2, *_pair("trt", "r4")),
)
"""A model that ships, for a dry run of the tool itself."""

TINY_COMPILED: tuple[Job, ...] = (
    _job("compile", "tiny", 2, *_pair("compile", "r4"), Way(kind="model compile")),
    _job("aoti", "tiny", 2, *_pair("aoti", "r4")),
    _job("onnx", "tiny", 2, *_pair("onnx", "r4")),
)
"""The same for what takes minutes on a small CPU."""

LISTS = {"full": FULL, "tiny": TINY, "tiny-compiled": TINY_COMPILED}
