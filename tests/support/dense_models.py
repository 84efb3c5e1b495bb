"""Models that need one entry per original token after their blocks: all tokens, taps of several blocks, maps.

Each calls `whole` where it needs them. That does nothing; the eager reference replaces it by the definition, and the
compiled program has to find the places by itself.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.support.families import OUTPUTS, PATCHES, WIDTH

GRID = int(PATCHES**0.5)


class Tokens(nn.Module):
    """The normalised tokens of a backbone."""

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.backbone = backbone

    def whole(self, x_BNC: Tensor) -> Tensor:
        """Nothing; see above."""
        return x_BNC

    def forward(self, images: Tensor) -> Tensor:
        """All tokens, (B, T, C)."""
        if hasattr(self.backbone, "forward_features"):
            return self.whole(self.backbone.forward_features(images))
        return self.whole(self.backbone(images).last_hidden_state)


class TorchvisionTokens(Tokens):
    """The tokens of torchvision's ViT, which has no method of its own for them."""

    def forward(self, images: Tensor) -> Tensor:
        """All tokens, (B, T, C)."""
        x_BNC = self.backbone._process_input(images)
        x_BNC = torch.cat((self.backbone.class_token.expand(len(x_BNC), -1, -1), x_BNC), dim=1)
        return self.whole(self.backbone.encoder(x_BNC))


class DepthAnything(Tokens):
    """Depth Anything of transformers, whose head reads several blocks."""

    def forward(self, images: Tensor) -> Tensor:
        """A map, (B, H, W)."""
        states = self.backbone.backbone.forward_with_filtered_kwargs(images).feature_maps
        rows, columns = (side // self.backbone.config.patch_size for side in images.shape[2:])
        features = self.backbone.neck([self.whole(state) for state in states], rows, columns)
        depth: Tensor = self.backbone.head(features, rows, columns)
        return depth


class Taps(Tokens):
    """A timm ViT whose tokens are read after several blocks, once all have run."""

    def taps(self, images: Tensor) -> list[Tensor]:
        """The normalised patches after the second and the last block, (B, P, C) each."""
        vit, kept = self.backbone, []
        x_BNC = vit.norm_pre(vit._pos_embed(vit.patch_embed(images)))
        for index, block in enumerate(vit.blocks):
            x_BNC = block(x_BNC)
            if index in (1, len(vit.blocks) - 1):
                kept.append(self.whole(x_BNC))
        return [vit.norm(x_BNC)[:, vit.num_prefix_tokens :] for x_BNC in kept]


class SeveralTaps(Taps):
    """All taps as outputs."""

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        """Of different depths."""
        return tuple(self.taps(images))


class JoinedTaps(Taps):
    """A classifier of every patch, over the channels of all taps."""

    def __init__(self, backbone: Any) -> None:
        super().__init__(backbone)
        self.head = nn.Linear(2 * WIDTH, OUTPUTS)

    def forward(self, images: Tensor) -> Tensor:
        """Classes of every patch, (B, P, OUTPUTS)."""
        classes: Tensor = self.head(torch.cat(self.taps(images), dim=2))
        return classes


class DepthHead(Taps):
    """A map made by convolutions over the grids of all taps, as DPT and Depth Anything do."""

    def __init__(self, backbone: Any) -> None:
        super().__init__(backbone)
        self.readouts = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(2))
        self.projections = nn.ModuleList(nn.Conv2d(WIDTH, 8, 1) for _ in range(2))
        self.fusion = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """A map, (B, 2 * GRID, 2 * GRID)."""
        maps = []
        for patches_BPC, readout, projection in zip(
            self.taps(images), self.readouts, self.projections, strict=True
        ):
            read_BCP = readout(patches_BPC).transpose(1, 2)
            maps.append(projection(read_BCP.reshape(read_BCP.shape[0], -1, GRID, GRID)))
        fused = self.fusion(maps[0] + functional.relu(maps[1]))
        wide = functional.interpolate(fused, scale_factor=2.0, mode="bilinear", align_corners=False)
        depth: Tensor = self.head(wide).squeeze(1)
        return depth
