"""A model whose tokens are changed between its blocks, one image at a time, by hooks on the libraries' own modules."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from tests.support.eager_towers import find_tower

Change = Callable[[Tensor], Tensor]
"""Tokens of one image (N, C) to those that go on, as many for every image."""


def run_hooked(
    model: nn.Module,
    images: Tensor,
    *,
    before: Mapping[int, Change] | None = None,
    after: Mapping[int, Change] | None = None,
) -> Tensor:
    """The model's output where tokens are changed before or after the blocks of these indices."""
    blocks = find_tower(model).blocks
    with torch.no_grad(), ExitStack() as stack:
        for block, change in (before or {}).items():
            hook = blocks[block].register_forward_pre_hook(_before(change))
            stack.callback(hook.remove)
        for block, change in (after or {}).items():
            hook = blocks[block].register_forward_hook(_after(change))
            stack.callback(hook.remove)
        output: Tensor = model(images)
    return output


def _before(change: Change) -> Callable[..., Any]:
    return lambda module, given: (torch.stack(list(map(change, given[0]))), *given[1:])


def _after(change: Change) -> Callable[..., Any]:
    return lambda module, given, result: torch.stack(list(map(change, result)))
