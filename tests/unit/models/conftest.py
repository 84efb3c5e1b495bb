"""Tiny models of every source, made once per session; no test of this room touches the network."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

from exporter.models.weights import redraw_constant_parameters
from tests.support.hf_families import FAMILIES


@pytest.fixture(scope="session")
def hf_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Any, Path]]:
    """Gives a tiny model by its class of transformers, and the folder that it was saved to."""

    @cache
    def get(name: str) -> tuple[Any, Path]:
        torch.manual_seed(0)
        model = FAMILIES[name].make().eval()
        redraw_constant_parameters(model)  # BLIP's own are all but zero
        folder = tmp_path_factory.mktemp("hf") / name
        model.save_pretrained(folder)
        return model, folder

    return get


@pytest.fixture(scope="session")
def tiny_vit() -> nn.Module:
    """A two-block timm ViT for 32 pixel images, patch 8, 5 classes."""
    torch.manual_seed(0)
    vit = timm.models.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=5
    )
    return vit.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def tiny_pt2(tiny_vit: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny ViT, exported and saved."""
    path = tmp_path_factory.mktemp("pt2") / "tiny.pt2"
    with torch.no_grad():
        torch.export.save(torch.export.export(tiny_vit, (torch.randn(2, 3, 32, 32),)), path)
    return path
