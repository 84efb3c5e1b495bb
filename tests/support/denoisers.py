"""Tiny denoisers of diffusers with random weights, what they are given, and the plain definition of merging in them.

The definition is hooked onto the library's own modules: before a block's self-attention the tokens that it is given
are merged by a match of the block's input, and its result is spread again. Loops over tokens, in float64.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

Given = tuple[Tensor, ...]


@cache
def tiny_unet() -> Any:
    """Three self-attentions on maps of the latents' size, 8 x 8."""
    from diffusers import UNet2DConditionModel

    shape = {"sample_size": 8, "layers_per_block": 1, "cross_attention_dim": 12, "attention_head_dim": 2}
    return _drawn(
        lambda: UNet2DConditionModel(
            **shape,
            norm_num_groups=4,
            block_out_channels=(16,),
            mid_block_type=None,
            down_block_types=("CrossAttnDownBlock2D",),
            up_block_types=("CrossAttnUpBlock2D",),
        )
    )


@cache
def tiny_dit() -> Any:
    """One block over 4 x 4 patches of 2 x 2 latents."""
    from diffusers import DiTTransformer2DModel

    return _drawn(
        lambda: DiTTransformer2DModel(
            num_attention_heads=2, attention_head_dim=8, num_layers=1, sample_size=8, num_embeds_ada_norm=10
        )
    )


@cache
def tiny_pixart() -> Any:
    """One block over 4 x 4 patches of 2 x 2 latents, with text."""
    from diffusers import PixArtTransformer2DModel

    shape = {"num_attention_heads": 2, "attention_head_dim": 8, "num_layers": 1, "sample_size": 8}
    return _drawn(lambda: PixArtTransformer2DModel(**shape, cross_attention_dim=16, caption_channels=12))


def _drawn(build: Callable[[], nn.Module]) -> nn.Module:
    """A model whose parameters all matter: diffusers starts some at zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build()
        for parameter in model.parameters():
            parameter.data = torch.randn_like(parameter) * (0.3 if parameter.dim() > 1 else 0.1)
    return model.eval().requires_grad_(False)


@contextmanager
def merging(model: nn.Module, ratio: float, sites: set[int]) -> Iterator[None]:
    """Within it, the model's own self-attentions merge this share of their tokens at these sites, in order."""
    handles: list[Any] = []
    named: list[tuple[str, Any]] = [
        (name, block)
        for name, block in model.named_modules()
        if type(block).__name__ == "BasicTransformerBlock"
    ]
    named.sort(key=lambda each: ("up_blocks" in each[0], "mid_block" in each[0]))
    attentions = [block for _, block in named]
    originals = [block.attn1.forward for block in attentions]
    for index in sites:
        _hook(attentions[index], ratio, handles)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for block, original in zip(attentions, originals, strict=True):
            block.attn1.forward = original


def _hook(block: Any, ratio: float, handles: list[Any]) -> None:
    entering: list[Tensor] = []
    handles.append(
        block.register_forward_pre_hook(
            lambda _, args, kwargs: entering.append((args or tuple(kwargs.values()))[0]), with_kwargs=True
        )
    )
    original = block.attn1.forward

    def around(tokens_BNC: Tensor, **options: Any) -> Tensor:
        stream_BNC = entering.pop()
        groups = [_groups(stream_NC, ratio) for stream_NC in stream_BNC]
        merged = torch.stack(
            [
                torch.stack([tokens_NC[members].mean(0) for members in found])
                for tokens_NC, found in zip(tokens_BNC, groups, strict=True)
            ]
        )
        attended_BKC = original(merged, **options)
        whole = torch.empty_like(tokens_BNC)
        for image, found in enumerate(groups):
            for slot, members in enumerate(found):
                whole[image, members] = attended_BKC[image, slot]
        return whole

    block.attn1.forward = around


def _groups(stream_NC: Tensor, ratio: float) -> list[list[int]]:
    """The tokens that become one, of a square grid: the top left of every 2x2 cell with what merges into it."""
    side = int(len(stream_NC) ** 0.5)
    targets = [row * side + column for row in range(0, side, 2) for column in range(0, side, 2)]
    sources = [token for token in range(side * side) if token not in targets]
    best: dict[int, tuple[float, int]] = {}
    wide = stream_NC.double()
    for source in sources:
        cosines = [
            float(wide[source] @ wide[target] / (wide[source].norm() * wide[target].norm()))
            for target in targets
        ]
        best[source] = (max(cosines), targets[cosines.index(max(cosines))])
    ranked = sorted(sources, key=lambda source: -best[source][0])
    merged = ranked[: int(len(stream_NC) * ratio)]
    groups = {target: [target] for target in targets}
    for source in merged:
        groups[best[source][1]].append(source)
    return [[source] for source in sources if source not in merged] + list(groups.values())
