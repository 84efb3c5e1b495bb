"""Real models that cannot be merged are refused in one line that names the node."""

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from timm.models.mlp_mixer import MlpMixer
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import Block, ParallelThingsBlock
from torch import nn

from exporter.errors import UnsupportedGraphError
from exporter.schedule import ScheduleRequest
from tests.support.compiled import Captured, capture_model, max_abs_error
from tests.support.families import timm_vit

MERGE = ScheduleRequest(r=2)


def pretrained_architecture(name: str, **options: Any) -> nn.Module:
    """Build a timm model by name with random weights."""
    torch.manual_seed(0)
    model: nn.Module = timm.create_model(name, **options).eval()
    return model


class Biased(nn.Module):
    """A small tower of one attention, whose logits get a bias of positions or a mask."""

    def __init__(self, bias: torch.Tensor, *, heads_apart: bool = True) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 6, 6)
        self.bias = nn.Buffer(bias)
        self.heads_apart = heads_apart

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Two attentions of two heads over 16 patches, then a mean."""
        x = self.patches(images).flatten(2).transpose(1, 2)
        for _ in range(2):
            q = x.unflatten(2, (2, 4)).transpose(1, 2)
            q = q if self.heads_apart else q.flatten(0, 1)
            attended = nn.functional.scaled_dot_product_attention(q, q, q, attn_mask=self.bias)
            x = x + attended.reshape(-1, 2, 16, 4).transpose(1, 2).flatten(2)
        pooled: torch.Tensor = x.mean(dim=1)
        return pooled


def triangle() -> torch.Tensor:
    """A mask that is true where a token stands no later than another."""
    return torch.ones(16, 16, dtype=torch.bool).tril()


FORBIDS = "forbids attention between positions"


@pytest.mark.parametrize(
    ("build", "size", "node", "reason"),
    [
        pytest.param(
            lambda: Biased(triangle()), 24, "scaled_dot_product_attention_1", FORBIDS, id="mask of truth values"
        ),
        pytest.param(
            lambda: Biased(torch.zeros(16, 16).masked_fill(~triangle(), -torch.inf)), 24,
            "scaled_dot_product_attention_1", FORBIDS, id="mask that is added",
        ),
        pytest.param(
            lambda: Biased(torch.randn(16, 16), heads_apart=False), 24, "scaled_dot_product_attention_1",
            "the axis of the images cannot be told from others", id="bias where images and heads share an axis",
        ),
        pytest.param(
            lambda: timm_vit(global_pool="max"), 24, "amax", "only a mean over the tokens", id="max pooling"
        ),
        pytest.param(
            lambda: timm_vit(global_pool="avgmax"), 24, "amax", "only a mean over the tokens",
            id="max beside mean",
        ),
        pytest.param(
            lambda: timm_vit(global_pool="", num_classes=0), 24, "output", "has one entry per token",
            id="all tokens returned",
        ),
    ],
)  # fmt: skip
def test_merging_is_refused_and_dense_still_works(
    build: Callable[[], nn.Module], size: int, node: str, reason: str
) -> None:
    model = build().eval()
    captured, images = capture_model(model, size), torch.randn(2, 3, size, size)

    with pytest.raises(
        UnsupportedGraphError, match=rf"because of node {node}.*{reason}.*use --r 0"
    ) as refusal:
        captured.compile(MERGE)
    dense, *_ = captured.compile(ScheduleRequest(r=0))(images)

    assert "\n" not in str(refusal.value)
    assert refusal.value.exit_status == 4
    assert max_abs_error(dense, model(images)) < 1e-5


WINDOWS = r"at node \w+, it splits the \d+ tokens over several axes .*windowed and hierarchical models"
UNKNOWN_ATTENTION = r"at node matmul\w*, it multiplies tokens with tokens"
NO_TRANSFORMER = r"found none.*needs a Vision Transformer"


@pytest.mark.parametrize(
    ("build", "size", "reason"),
    [
        pytest.param(
            lambda: SwinTransformer(
                img_size=32, patch_size=2, window_size=4, embed_dim=16, depths=(2, 2), num_heads=(2, 4)
            ),
            32, WINDOWS, id="Swin",
        ),
        pytest.param(lambda: pretrained_architecture("hiera_tiny_224", stages=(1, 1, 1, 1)), 224, WINDOWS, id="Hiera"),
        pytest.param(
            lambda: pretrained_architecture("samvit_base_patch16_224", depth=2, embed_dim=96, num_heads=4), 224,
            WINDOWS, id="SAM",
        ),
        pytest.param(
            lambda: pretrained_architecture("xcit_nano_12_p16_224", depth=2), 224, UNKNOWN_ATTENTION, id="XCiT"
        ),
        pytest.param(
            lambda: pretrained_architecture("cait_xxs24_224", depth=2), 224, UNKNOWN_ATTENTION, id="CaiT"
        ),
        pytest.param(
            lambda: pretrained_architecture("levit_128s", depth=(1, 1, 1)), 224,
            r"at node reshape_as\w*, no rule says", id="LeViT",
        ),
        pytest.param(lambda: pretrained_architecture("resnet18"), 64, NO_TRANSFORMER, id="ResNet"),
        pytest.param(
            lambda: MlpMixer(img_size=32, patch_size=8, num_blocks=1, embed_dim=16), 32, NO_TRANSFORMER,
            id="MLP-Mixer",
        ),
        pytest.param(
            lambda: timm_vit(block_fn=ParallelThingsBlock), 24, r"no merge point after attention \w+ \(block 0\)",
            id="parallel attentions",
        ),
    ],
)  # fmt: skip
def test_a_model_without_mergeable_attention_is_refused_at_once(
    build: Callable[[], nn.Module], size: int, reason: str
) -> None:
    model = build().eval()

    with pytest.raises(UnsupportedGraphError, match=reason) as refusal:
        capture_model(model, size)

    assert "\n" not in str(refusal.value)
    assert refusal.value.exit_status == 4


class SkippingBlock(Block):
    """A block that adds the model's first tokens again, as U-shaped transformers do."""

    first: torch.Tensor | None = None

    def forward(self, x: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        """Run the block; the very first tokens are added at the end."""
        if SkippingBlock.first is None or SkippingBlock.first.shape != x.shape:
            SkippingBlock.first = x
        return super().forward(x, *arguments, **options) + SkippingBlock.first


def test_a_skip_across_blocks_is_refused() -> None:
    SkippingBlock.first = None

    with pytest.raises(UnsupportedGraphError, match=r"no merge point after attention \w+ \(block 0\)"):
        capture_model(timm_vit(block_fn=SkippingBlock).eval())


class CausalAttention(nn.Module):
    """A ViT block's attention in which every token sees only those before it."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.head = nn.Linear(8, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Two causal attentions with residuals, then a mean."""
        x = self.patches(images).flatten(2).transpose(1, 2)
        for _ in range(2):
            q = x.unsqueeze(1)
            x = x + nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True).squeeze(1)
        logits: torch.Tensor = self.head(x.mean(dim=1))
        return logits


def test_causal_attention_is_refused() -> None:
    captured: Captured = capture_model(CausalAttention().eval())

    with pytest.raises(UnsupportedGraphError, match="causal attention depends on the order"):
        captured.compile(ScheduleRequest(r=2))
