"""DynamicViT (Rao et al. 2021, section 3.2): patches that a predictor would rather drop leave before the block."""

import torch
from torch import Tensor, nn


class Predictor(nn.Module):
    """The network that scores the patches of one image; its tensors have the names of the published checkpoints."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.in_conv = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU())
        self.out_conv = nn.Sequential(
            nn.Linear(width, width // 2),
            nn.GELU(),
            nn.Linear(width // 2, width // 4),
            nn.GELU(),
            nn.Linear(width // 4, 2),
            nn.LogSoftmax(dim=-1),
        )

    def forward(self, patches_PC: Tensor) -> Tensor:
        """Log-probability that each patch is kept, (P,)."""
        vectors = [self.in_conv(patch_C) for patch_C in patches_PC]
        half = len(vectors[0]) // 2
        shared = sum(vector[half:] for vector in vectors) / len(vectors)
        return torch.stack([self.out_conv(torch.cat((vector[:half], shared)))[0] for vector in vectors])


def keep(tokens_NC: Tensor, predictor: nn.Module, *, kept: int, prefix: int) -> tuple[Tensor, float]:
    """The tokens of one image that stay, and by how much the last one leads the first that is dropped, of the range."""
    score = predictor(tokens_NC[prefix:]).tolist()
    # sorted() is stable: at equal scores the lower patch stays in front
    ranked = sorted(range(len(score)), key=lambda patch: -score[patch])
    margin = (score[ranked[kept - 1]] - score[ranked[kept]]) / (max(score) - min(score))
    stay = [*range(prefix), *(prefix + patch for patch in ranked[:kept])]
    return tokens_NC[stay], margin
