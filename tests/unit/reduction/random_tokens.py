"""Random tokens and sizes of the tests that compare with loops over tokens."""

import torch
from torch import Tensor

BATCH, TOKENS, HEADS, WIDTH = 2, 7, 3, 4


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def random_sizes(*shape: int) -> Tensor:
    return torch.randint(1, 9, shape, generator=torch.Generator().manual_seed(1)).float()
