"""The embedded two-tower model, `clip_digits`: scans and texts about them in one space of 64 channels.

Both towers are in one
file of weights, `image.*` and `text.*`, written by `tools/train_clip_digits.py`. Neither output is normalised.

Shape suffixes: B items, T tokens, C channels.
"""

from pathlib import Path

import torch
from timm.models import VisionTransformer
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from exporter.models.shipped.digit_texts import CONTEXT, VOCABULARY
from exporter.models.shipped.digits import IMAGE_SIZE

CLIP_DIGITS_WEIGHTS = Path(__file__).parent / "assets" / "clip_digits.safetensors"
EMBEDDING = 64


class DigitTextTower(nn.Module):
    """Token ids to embeddings: 16 tokens of 64 channels through 3 blocks, then their mean.

    Padding is a token like any other, in attention and in the mean: the context is fixed, so a text always has the
    same padding, and the model is trained with it. There is no mask to export.
    """

    def __init__(self) -> None:
        super().__init__()
        width = 64
        self.words = nn.Embedding(len(VOCABULARY), width)
        self.positions = nn.Parameter(torch.randn(1, CONTEXT, width) * 0.02)
        self.blocks = nn.Sequential(*(Block(width, num_heads=4, qkv_bias=True) for _ in range(3)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, EMBEDDING)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Embed token ids, int64 (B, 16); returns (B, 64)."""
        x_BTC = self.blocks(self.words(input_ids) + self.positions)
        embedding: Tensor = self.head(self.norm(x_BTC).mean(dim=1))
        return embedding


class ClipDigits(nn.Module):
    """Both towers: `image` is a ViT of 6 blocks over 64 patches and a class token, `text` as above."""

    def __init__(self) -> None:
        super().__init__()
        self.image = VisionTransformer(
            img_size=IMAGE_SIZE,
            patch_size=4,
            in_chans=3,
            num_classes=EMBEDDING,
            embed_dim=80,
            depth=6,
            num_heads=5,
            mlp_ratio=4.0,
        )
        self.text = DigitTextTower()
