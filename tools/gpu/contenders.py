"""What is timed, the most important first; no torch here.

A contender is one way of running one model at one batch size. The model in its library's own code in fp16, which is
what a user has today, comes first at each batch size, and what everything is compared with.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from exporter.errors import UsageError
from exporter.models import ModelRequest
from exporter.schedule import ScheduleRequest

Kind = Literal["library", "program", "onnx", "aoti", "trt"]
"""The library's module in eager PyTorch; the rewritten program in eager PyTorch; the targets of those names."""

BUILT = ("aoti", "trt")
"""Kinds that need the GPU to be built."""

MODELS = {
    "vit_b": ModelRequest(model="vit_b16", weights="random"),
    "vit_l": ModelRequest(model="vit_l16", weights="random"),
    "clip_l": ModelRequest(model="timm:vit_large_patch14_clip_quickgelu_336.openai", weights="random"),
    "dinov2_b": ModelRequest(model="timm:vit_base_patch14_dinov2.lvd142m", weights="random"),
    "tiny": ModelRequest(model="timm:test_vit", weights="random", options={"depth": 2}),
}
"""All of them are timm's, and none is downloaded; `tiny` is for a dry run."""

_FULL = ("vit_b", "vit_l", "clip_l", "dinov2_b")

MERGINGS: Mapping[str, ScheduleRequest] = {
    "dense": ScheduleRequest(),
    **{f"r{r}": ScheduleRequest(r=r) for r in (4, 7, 8, 13, 16, 40)},
    "keep.95": ScheduleRequest(keep_per_layer=(0.95,) * 24),
}

_PUBLISHED = {"vit_b": "r13", "vit_l": "r7", "clip_l": "keep.95", "dinov2_b": "r40", "tiny": "r4"}
"""By model, the setting of its paper or its recipe."""


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One way of running a model.

    Attributes:
        model: a key of `MODELS`.
        batch: images per call.
        kind: what runs it.
        merging: a key of `MERGINGS`.
        precision: of the weights and the products.
        merge: plain `operators`, or the fused `kernels` that AOTInductor is given; None for the target's own forms.
        graph: whether the launches are replayed from a CUDA graph.
        listed: whether its GPU kernels are listed, block by block.
    """

    model: str
    batch: int
    kind: Kind
    merging: str = "dense"
    precision: str = "fp16"
    merge: Literal["operators", "kernels"] | None = None
    graph: bool = True
    listed: bool = False

    @property
    def name(self) -> str:
        """Unique; for people."""
        parts = (self.kind, self.merge, self.merging, self.precision, "graph" if self.graph else None)
        return f"{self.model} b{self.batch} " + " ".join(filter(None, parts))

    @property
    def is_baseline(self) -> bool:
        """Whether it is what a user has today."""
        return self.kind == "library" and not self.graph

    def is_dense_form_of(self, other: "Contender") -> bool:
        """Whether the two differ in merging alone, and this one is dense."""
        return other.merging != "dense" and replace(other, merging="dense", listed=self.listed) == self


def contenders(models: tuple[str, ...] = _FULL, only: tuple[str, ...] = ()) -> tuple[Contender, ...]:
    """The list, the most important first.

    Args:
        models: some of `MODELS`.
        only: contenders whose names contain one of these; empty for all.

    Raises:
        UsageError: there is no such model, or no such contender.
    """
    if unknown := sorted(set(models) - set(MODELS)):
        raise UsageError(f"--models: expected some of {', '.join(MODELS)}, got {unknown[0]}")
    whole = [each for model, batch in _order(models) for each in _group(model, batch)]
    return chosen(whole, only)


def chosen(whole: Sequence[Contender], only: tuple[str, ...]) -> tuple[Contender, ...]:
    """Those whose names contain one of these texts; all for none.

    Raises:
        UsageError: there are none.
    """
    found = tuple(each for each in whole if not only or any(part in each.name for part in only))
    if not found:
        raise UsageError(f"--only: expected parts of names such as {whole[0].name}, got {','.join(only)}")
    return found


def _order(models: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    """ViT-B first, which the targets are about; then the others, a batch size at a time."""
    if "tiny" in models:
        yield "tiny", 2
    if "vit_b" in models:
        yield from (("vit_b", batch) for batch in (64, 1, 256, 8))
    others = [model for model in models if model not in ("tiny", "vit_b")]
    yield from ((model, batch) for batch in (64, 1, 256, 8) for model in others)


def _group(model: str, batch: int) -> Iterator[Contender]:
    """Everything that is compared with each other."""
    merged, is_vit_b = _PUBLISHED[model], model == "vit_b"
    base = Contender(model=model, batch=batch, kind="library")
    yield replace(base, graph=False)
    yield base
    listed = model == "tiny" or (is_vit_b and batch == 64)
    pair = ("dense", merged)
    merges: tuple[Literal["operators", "kernels"], ...] = ("kernels", "operators")
    for merge in merges:
        program = replace(base, kind="program", merge=merge)
        yield from (replace(program, merging=merging, listed=listed) for merging in pair)
        if merge == "kernels":
            extra = ("r8", "r16") if is_vit_b else ()
            yield from (replace(program, merging=merging) for merging in extra)
            narrow = replace(program, precision="fp8")
            yield from (replace(narrow, merging=each) for each in (*pair, *extra[1:]))
    if is_vit_b or batch == 64 or model == "tiny":
        yield from (replace(base, kind=kind, merging=each) for kind in ("onnx", "aoti") for each in pair)
    if batch == 64 or (is_vit_b and batch == 1):
        yield from (replace(base, kind="trt", merging=each) for each in pair)
