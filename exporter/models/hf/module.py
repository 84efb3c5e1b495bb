"""A transformers model that takes one tensor and returns one tensor, and what such a model says about itself.

In: a class and its configuration; out: an `Unwrapped` module for `capture`, real or on
the meta device, where it only has shapes.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from exporter.models.quiet import quiet

Pick = Literal[
    "logits",
    "image_embeds",
    "text_embeds",
    "pooler_output",
    "class_token",
    "mean",
    "last_hidden_state",
    "hidden_states",
    "predicted_depth",
    "heatmaps",
    "feature_maps",
]
Call = Literal["forward", "get_image_features", "get_text_features"]

INTERPOLATES = "interpolate_pos_encoding"
"""The method of transformers' embeddings that resamples positions, and the argument that asks for it."""


@dataclass(frozen=True, kw_only=True)
class Read:
    """Which hidden states another model reads.

    Attributes:
        layers: By number, 0 being what enters the first block; negative ones count from the last. The channels of
            several are put side by side.
        skipped: How many first tokens are left out.
    """

    layers: tuple[int, ...]
    skipped: int


@dataclass(frozen=True, kw_only=True)
class Build:
    """What to build, and what to ask of it.

    Attributes:
        model_class: The transformers class.
        config: What it is built with.
        arguments: Further arguments of the class.
        call: The method that is called.
        pick: What is taken of the output; `class_token` is the first token of the last hidden state, `mean` the mean
            of all of them.
        child: The part of the model that is called, where it is not the whole.
        unused: Parts of the model that the call does not need: they are taken off.
        read: What is taken where `pick` is `hidden_states`.
        padding: The id of a text's padding, of which the mask over it is made; None where there is no mask.
    """

    model_class: Any
    config: Any
    pick: Pick
    call: Call = "forward"
    child: str | None = None
    unused: tuple[str, ...] = ()
    read: Read | None = None
    padding: int | None = None
    arguments: Mapping[str, bool] = field(default_factory=dict)


class Unwrapped(nn.Module):
    """A transformers model that takes one tensor and returns one tensor instead of an output object."""

    def __init__(self, model: nn.Module, build: Build, *, resampled: bool = False) -> None:
        super().__init__()
        self.model = model
        self.pick = build.pick
        self.call = build.call
        self.read = build.read
        self.padding = build.padding
        self.arguments: dict[str, Any] = {INTERPOLATES: True} if resampled else {}
        if build.read is not None:
            self.arguments["output_hidden_states"] = True

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Run the model on images (B, C, H, W) or token ids (B, context); returns (B, K), or tokens (B, T, K)."""
        masks = {} if self.padding is None else {"attention_mask": (inputs != self.padding).long()}
        output = getattr(self.model, self.call)(inputs, **masks, **self.arguments)
        if self.read is not None:
            states = [output.hidden_states[layer][:, self.read.skipped :] for layer in self.read.layers]
            return torch.cat(states, dim=2) if len(states) > 1 else states[0]
        if self.pick == "class_token":
            class_token: torch.Tensor = output.last_hidden_state[:, 0]
            return class_token
        if self.pick == "mean":
            mean: torch.Tensor = output.last_hidden_state.mean(dim=1)
            return mean
        if self.pick == "feature_maps":
            (only,) = output.feature_maps
            maps: torch.Tensor = only
            return maps
        picked: torch.Tensor = getattr(output, self.pick)
        return picked


def attention_of(model_class: Any) -> str:
    """The attention implementation to ask for: one node in the graph where the class supports it."""
    return "sdpa" if model_class._supports_sdpa else "eager"


def instantiate(model_class: Any, config: Any, arguments: Mapping[str, bool]) -> nn.Module:
    """Build a model with the parameters that its class draws."""
    with quiet():
        model: nn.Module = model_class._from_config(
            config, attn_implementation=attention_of(model_class), **arguments
        )
    return model.eval()


def on_meta(model_class: Any, config: Any, arguments: Mapping[str, bool] | None = None) -> nn.Module:
    """Build a model of shapes alone."""
    with torch.device("meta"):
        return instantiate(model_class, config, arguments or {})


def whole_on_meta(model_class: Any, config: Any) -> nn.Module:
    """Build a checkpoint's own class of shapes alone, whatever attention the parts of it that are not run support."""
    with torch.device("meta"), quiet():
        whole: nn.Module = model_class._from_config(config, attn_implementation="eager")
    return whole.eval()


def unwrap(model: nn.Module, build: Build, *, resampled: bool = False) -> Unwrapped:
    """Wrap a model, less what is not needed of it."""
    if build.child is not None:
        model = model.get_submodule(build.child)
    for name in build.unused:
        delattr(model, name)
    return Unwrapped(model, build, resampled=resampled)


@torch.no_grad()
def run_on_meta(module: nn.Module, example: torch.Tensor, call: str = "forward") -> Any:
    """Whatever a model of shapes returns for an input of a shape."""
    with quiet():
        return getattr(module, call)(example.to("meta"))


@contextmanager
def watching_children(module: nn.Module) -> Iterator[set[str]]:
    """Gather the names of the direct children that are called."""
    called: set[str] = set()
    hooks = [
        child.register_forward_pre_hook(lambda _module, _args, name=name: called.add(name))
        for name, child in module.named_children()
    ]
    try:
        yield called
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def recording_resampling(module: nn.Module) -> Iterator[dict[nn.Module, torch.Tensor]]:
    """Gather the parts of a model whose own method resamples positions while it runs, and what it gives."""
    recorded: dict[nn.Module, torch.Tensor] = {}
    owners = [part for part in module.modules() if hasattr(part, INTERPOLATES)]
    for owner in owners:
        owner.__dict__[INTERPOLATES] = _recording(owner, recorded)
    try:
        yield recorded
    finally:
        for owner in owners:
            del owner.__dict__[INTERPOLATES]


def _recording(owner: nn.Module, recorded: dict[nn.Module, torch.Tensor]) -> Any:
    method = getattr(owner, INTERPOLATES)

    def record(*arguments: Any) -> torch.Tensor:
        recorded[owner] = method(*arguments).clone()
        return recorded[owner]

    return record
