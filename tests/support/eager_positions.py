"""Merging in models with tables of positions, in the plainest way: the libraries' own modules, image by image.

A token that others merge into stays at its own position: its row and column of a position bias are those of that
position. Its rotation is by the mean angle of all that merged. The modules rotate and add as they always do.

Shape suffixes: N tokens that enter a block, P patches, H heads, D channels per head, C channels.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.support.definitions import Entering, definition


@dataclass(kw_only=True)
class OneImage:
    """The tokens of one image on their way through the blocks.

    Attributes:
        removed: tokens that leave each block.
        method: how they are chosen and combined.
        prefix: tokens that come from no patch.
        members: the original tokens that each one is the mean of, its own position first.
        sizes_N: how many original tokens each one stands for.
        margin: the smallest difference of scores that decided anything.
    """

    removed: Sequence[int]
    method: str
    prefix: int
    members: list[list[int]] = field(default_factory=list)
    sizes_N: Tensor = field(default_factory=lambda: torch.ones(0))
    margin: float = torch.inf
    blocks_done: int = 0

    @property
    def positions(self) -> list[int]:
        """Where each token was at first."""
        return [members[0] for members in self.members]

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, scale: Any = None, **_: Any
    ) -> Tensor:
        """In place of PyTorch's attention: add log(size), and the bias of every pair of positions."""
        logits_1HNN = q @ k.transpose(2, 3) * (scale or q.shape[-1] ** -0.5)
        if attn_mask is not None:
            for row, first in enumerate(self.positions):
                for column, second in enumerate(self.positions):
                    logits_1HNN[:, :, row, column] += attn_mask[:, :, first, second]
        logits_1HNN = logits_1HNN + self.sizes_N.log()
        shares_1HNN = logits_1HNN.softmax(dim=-1)
        self.keys_HND, self.values_HND, self.row_N = k[0], v[0], shares_1HNN[0, :, 0].mean(dim=0)
        attended_1HND: Tensor = shares_1HNN @ v
        return attended_1HND

    def rotations(self, sine: Tensor, cosine: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of two tables (..., P, D) for the tokens after the prefix: the mean vector at full length.

        Where it is shorter than a quarter, it is made four times as long.
        """
        rows = []
        for members in self.members[self.prefix :]:
            at = [member - self.prefix for member in members]
            means = sine[..., at, :].mean(dim=-2), cosine[..., at, :].mean(dim=-2)
            length = torch.hypot(*means).clamp_min(0.25)
            rows.append([mean / length for mean in means])
        sines, cosines = zip(*rows, strict=True)
        return torch.stack(sines, dim=-2), torch.stack(cosines, dim=-2)

    def reduce(self, x_1NC: Tensor) -> Tensor:
        """Let tokens leave as this block's schedule says."""
        left = definition(self.method)(
            Entering(
                tokens_NC=x_1NC[0],
                sizes_N=self.sizes_N,
                keys_HND=self.keys_HND,
                values_HND=self.values_HND,
                row_N=self.row_N,
                removed=self.removed[self.blocks_done],
                dropped=0,
                prefix=self.prefix,
                block=self.blocks_done,
                blocks=len(self.removed),
            )
        )
        self.blocks_done += 1
        groups = left.matching.groups
        self.members = [[each for token in group for each in self.members[token]] for group in groups]
        self.sizes_N = left.sizes_K
        self.margin = min(self.margin, left.matching.margin)
        return left.tokens_KC[None]

    def forward(self, block: Any) -> Callable[..., Tensor]:
        """The forward of one block, with the reduction between attention and MLP."""
        attend, mlp = branches(block)

        def run(x_1NC: Tensor, *_: object, **options: Any) -> Tensor:
            if not self.members:
                self.members = [[token] for token in range(x_1NC.shape[1])]
                self.sizes_N = x_1NC.new_ones(x_1NC.shape[1])
            if options.get("rope") is not None:
                options["rope"] = torch.cat(self.rotations(*options["rope"].chunk(2, dim=-1)), dim=-1)
            if options.get("position_embeddings") is not None:
                cosine, sine = options["position_embeddings"]
                options["position_embeddings"] = self.rotations(sine, cosine)[::-1]
            x_1NC = self.reduce(x_1NC + attend(x_1NC, options))
            return x_1NC + mlp(x_1NC)

        return run


def branches(block: Any) -> tuple[Callable[[Tensor, dict[str, Any]], Tensor], Callable[[Tensor], Tensor]]:
    """The two branches of a block by the library that it comes from: attention, and MLP."""
    match type(block).__name__:
        case "EvaBlock":
            return (
                lambda x, options: scaled(block.attn(block.norm1(x), rope=options["rope"]), block.gamma_1),
                lambda x: scaled(block.mlp(block.norm2(x)), block.gamma_2),
            )
        case "Block":
            return (
                lambda x, options: scaled(block.attn(block.norm1(x)), block.gamma_1),
                lambda x: scaled(block.mlp(block.norm2(x)), block.gamma_2),
            )
        case "RelPosBlock":
            return (
                lambda x, options: block.ls1(block.attn(block.norm1(x))),
                lambda x: block.ls2(block.mlp(block.norm2(x))),
            )
        case "DINOv3ViTLayer":
            return (
                lambda x, options: block.layer_scale1(block.attention(block.norm1(x), **options)[0]),
                lambda x: block.layer_scale2(block.mlp(block.norm2(x))),
            )
        case "BeitLayer":
            return (
                lambda x, options: (
                    block.lambda_1 * block.attention(block.layernorm_before(x), bias_of(block))[0]
                ),
                lambda x: block.lambda_2 * block.mlp(block.layernorm_after(x)),
            )
    raise TypeError(f"no branches of {type(block).__name__} are written out here")


def scaled(x: Tensor, gamma: Tensor | None) -> Tensor:
    """LayerScale, where there is one."""
    return x if gamma is None else gamma * x


def bias_of(block: Any) -> Tensor:
    """The position bias of a BEiT block of transformers, for all of its positions."""
    bias: Tensor = block.relative_position_bias(block.relative_position_bias.window_size)
    return bias


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The blocks of a tower: the longest list of modules in it."""
    lists = [list(module) for module in model.modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=len)


def merged_at_own_positions(
    model: nn.Module, images: Tensor, removed: Sequence[int], prefix: int, method: str = "tome"
) -> tuple[Tensor, float]:
    """Run the model with `removed[l]` tokens leaving block l.

    Returns:
        Its output, and the smallest difference of scores that decided anything.
    """
    outputs, margins = [], []
    for image in images.split(1):
        walk = OneImage(removed=removed, method=method, prefix=prefix)
        with merging(blocks_of(model), walk), torch.no_grad():
            outputs.append(model(image))
        assert walk.blocks_done == len(removed)
        margins.append(walk.margin)
    return torch.cat(outputs), min(margins)


@contextmanager
def merging(blocks: Sequence[nn.Module], walk: OneImage) -> Iterator[None]:
    """Let the blocks merge, for a while."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.functional, "scaled_dot_product_attention", walk.attend)
        for block in blocks:
            patch.setattr(block, "forward", walk.forward(block))
        yield
