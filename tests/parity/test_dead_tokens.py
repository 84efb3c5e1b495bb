"""Dead-token removal at full size: what it saves of a ViT-B/16, and that no output moves."""

from typing import Any

import pytest
import timm
import torch

from exporter.rewrite import RewrittenProgram
from exporter.schedule import ScheduleRequest
from tests.support.compiled import Captured, capture_model, max_abs_error

WIDTH, TOKENS, PATCHES, BLOCKS, CLASSES = 768, 197, 196, 12, 1000
BLOCKS_MACS = BLOCKS * (12 * TOKENS * WIDTH**2 + 2 * TOKENS**2 * WIDTH)
DENSE_MACS = BLOCKS_MACS + PATCHES * WIDTH * 3 * 16 * 16 + WIDTH * CLASSES
DEAD_MACS = PATCHES * (10 * WIDTH**2 + 2 * TOKENS * WIDTH)
"""Query, projection and MLP of the last block, and its rows of attention, for every patch."""


@pytest.fixture(scope="module")
def vit_b16() -> Captured:
    """Capture a ViT-B/16 with random weights, its head as random as the rest."""
    torch.manual_seed(0)
    model: Any = timm.create_model("vit_base_patch16_224").eval()
    torch.nn.init.normal_(model.head.weight, std=0.05)
    return capture_model(model, 224)


def dense(captured: Captured, **options: Any) -> RewrittenProgram:
    return captured.compile(ScheduleRequest(r=0), batch=1, **options)


def test_dead_token_removal_saves_seven_percent_of_a_dense_vit_b(vit_b16: Captured) -> None:
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    whole = dense(vit_b16, disabled=frozenset({"remove_dead_tokens"}))
    trimmed = dense(vit_b16)

    with torch.no_grad():
        error = max_abs_error(trimmed(images)[0], whole(images)[0])

    assert whole.executed_macs == DENSE_MACS == 17_563_828_224
    assert trimmed.executed_macs == DENSE_MACS - DEAD_MACS
    assert round(100 * DEAD_MACS / DENSE_MACS) == 7
    assert error < 1e-5
    assert whole(images)[0].abs().max() > 0.1
