"""Modules made for one purpose each, and the steps that every test of a pass takes."""

from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from exporter.capture import EXAMPLE_BATCH, Program, capture
from exporter.graph import GraphPass, PassOutcome, copy_graph, run_passes
from exporter.graph.nodes import input_nodes, output_node

WIDTH, HEADS, PATCHES, SIDE, CLASSES = 16, 2, 16, 8, 5

Projection = Literal["fused", "separate", "torch"]


class Attention(nn.Module):
    """Self-attention over (B, N, C), spelled in one of three ways."""

    def __init__(self, projection: Projection, *, norm: bool = False, bias: bool = True) -> None:
        super().__init__()
        self.projection = projection
        if projection == "torch":
            self.torch_attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True, bias=bias)
        elif projection == "fused":
            self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=bias)
        else:
            self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH, bias=bias) for _ in range(3))
        self.norm = nn.LayerNorm(WIDTH // HEADS) if norm else nn.Identity()
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Attend."""
        if self.projection == "torch":
            attended: Tensor = self.torch_attention(x, x, x, need_weights=False)[0]
            return attended
        q, k, v = self.heads(x)
        attended = functional.scaled_dot_product_attention(self.norm(q), k, v)
        return cast(Tensor, self.out(attended.transpose(1, 2).flatten(2)))

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project to three times (B, H, N, D)."""
        batch, tokens, _ = x.shape
        if self.projection == "fused":
            q, k, v = self.qkv(x).reshape(batch, tokens, 3, HEADS, -1).permute(2, 0, 3, 1, 4).unbind(0)
            return q, k, v
        q, k, v = (
            part(x).view(batch, tokens, HEADS, -1).transpose(1, 2) for part in (self.q, self.k, self.v)
        )
        return q, k, v


class Block(nn.Module):
    """Attention and MLP with their residuals."""

    def __init__(self, projection: Projection = "fused", *, norm: bool = False, bias: bool = True) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = Attention(projection, norm=norm, bias=bias)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) to the same."""
        x = x + self.attention(self.norm_1(x))
        return cast(Tensor, x + self.mlp(self.norm_2(x)))


class SmallVit(nn.Module):
    """Images (B, 3, 8, 8) in 16 patches, prefix tokens, blocks, and a head."""

    def __init__(
        self,
        *blocks: nn.Module,
        prefix: int = 1,
        head: Literal["class", "mean", "patch mean", "both", "tokens"] = "class",
        positions: bool = True,
    ) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, WIDTH, 2, stride=2)
        self.prefix = nn.Parameter(torch.zeros(1, prefix, WIDTH))
        self.positions = nn.Parameter(torch.zeros(1, PATCHES, WIDTH), requires_grad=positions)
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(WIDTH)
        self.classifier = nn.Linear(WIDTH, CLASSES)
        self.head_kind = head

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Classify."""
        x = self.patch(images).flatten(2).transpose(1, 2) + self.positions
        x = torch.cat((self.prefix.expand(x.shape[0], -1, -1), x), dim=1)
        x = self.norm(self.blocks(x))
        match self.head_kind:
            case "class":
                return cast(Tensor, self.classifier(x[:, 0]))
            case "mean":
                return cast(Tensor, self.classifier(x.mean(dim=1)))
            case "patch mean":
                return cast(Tensor, self.classifier(x[:, self.prefix.shape[1] :].mean(dim=1)))
            case "both":
                return self.classifier(x[:, 0]), x[:, self.prefix.shape[1] :].mean(dim=1)
            case _:
                return cast(Tensor, x)


@torch.no_grad()
def seeded(module: nn.Module, seed: int = 0) -> nn.Module:
    """Return the module with weights that leave no part idle, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.copy_(
            noise / parameter[0].numel() ** 0.5 if "weight" in name and noise.dim() > 1 else 0.5 * noise
        )
    return module.eval().requires_grad_(False)


def random(*shape: int, seed: int = 1) -> Tensor:
    """Return normal noise."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def images(batch: int = EXAMPLE_BATCH) -> Tensor:
    """Return random images (B, 3, 8, 8)."""
    return random(batch, 3, SIDE, SIDE)


@dataclass(frozen=True, kw_only=True)
class Rewritten:
    """A captured module before and after some passes."""

    before: fx.GraphModule
    after: fx.GraphModule
    outcomes: tuple[PassOutcome, ...]

    @property
    def outcome(self) -> PassOutcome:
        """What the last pass did."""
        return self.outcomes[-1]

    def assert_same_numbers(self, example: Tensor, *, atol: float) -> None:
        """Fail unless both graphs compute the same from one example."""
        for found, expected in zip(self.after(example), self.before(example), strict=True):
            torch.testing.assert_close(found, expected, atol=atol, rtol=0.0)

    def assert_same_signature(self) -> None:
        """Fail unless the graph still has its one placeholder and as many outputs."""
        (before,), (after,) = input_nodes(self.before.graph), input_nodes(self.after.graph)
        assert after.name == before.name
        assert after.meta["val"].shape == before.meta["val"].shape
        assert after.meta["val"].dtype == before.meta["val"].dtype
        assert len(results(self.after)) == len(results(self.before))

    def assert_untouched(self) -> None:
        """Fail unless the pass neither claims nor did anything."""
        assert not self.outcome.modified
        assert code(self.after) == code(self.before)


def results(graph_module: fx.GraphModule) -> tuple[fx.Node, ...]:
    """Return the nodes of the output."""
    nodes: tuple[fx.Node, ...] = output_node(graph_module.graph).args[0]  # type: ignore[assignment]
    return nodes


def code(graph_module: fx.GraphModule) -> list[str]:
    """Return the graph as text, one line per node."""
    return [node.format_node() or "" for node in graph_module.graph.nodes]


def rewritten(
    model: nn.Module, example: Tensor, *passes: GraphPass, first: tuple[GraphPass, ...] = ()
) -> Rewritten:
    """Capture, run `first` for both, then `passes` on a copy; the two graphs share their parameters."""
    program: Program = capture(model, example)
    run_passes(program.graph_module, first)
    after = copy_graph(program.graph_module)
    outcomes = run_passes(after, passes)
    return Rewritten(before=program.graph_module, after=after, outcomes=outcomes)
