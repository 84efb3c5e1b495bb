"""Tiny models of every source, made once per session; no test of this room touches the network."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import transformers
from torch import nn

_VISION: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}
_CLASSIFIER = _VISION | {"num_labels": 5}
_DINO = {key: value for key, value in _VISION.items() if key != "intermediate_size"}
_TEXT: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 99,
    "max_position_embeddings": 16,
    "bos_token_id": 97,
    "eos_token_id": 98,
    "pad_token_id": 1,
    "projection_size": 32,
}

_HF_MODELS: dict[str, Callable[[], Any]] = {
    "vit": lambda: transformers.ViTForImageClassification(transformers.ViTConfig(**_CLASSIFIER)),
    "vit_headless": lambda: transformers.ViTModel(transformers.ViTConfig(**_VISION)),
    "vit_mae": lambda: transformers.ViTMAEForPreTraining(
        transformers.ViTMAEConfig(**_VISION, decoder_num_hidden_layers=1, decoder_hidden_size=32)
    ),
    "deit": lambda: transformers.DeiTForImageClassification(transformers.DeiTConfig(**_CLASSIFIER)),
    "deit_distilled": lambda: transformers.DeiTForImageClassificationWithTeacher(
        transformers.DeiTConfig(**_CLASSIFIER)
    ),
    "dinov2": lambda: transformers.Dinov2Model(transformers.Dinov2Config(**_DINO)),
    "dinov2_registers": lambda: transformers.Dinov2WithRegistersModel(
        transformers.Dinov2WithRegistersConfig(**_DINO)
    ),
    "clip": lambda: transformers.CLIPModel(
        transformers.CLIPConfig(vision_config=_VISION, text_config=_TEXT, projection_dim=16)
    ),
    "siglip": lambda: transformers.SiglipModel(
        transformers.SiglipConfig(vision_config=_VISION, text_config=_TEXT)
    ),
}


@pytest.fixture(scope="session")
def hf_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[nn.Module, Path]]:
    """Gives a tiny transformers model by family, and the folder that it was saved to."""
    made: dict[str, tuple[nn.Module, Path]] = {}

    def get(family: str) -> tuple[nn.Module, Path]:
        if family not in made:
            torch.manual_seed(0)
            model = _HF_MODELS[family]().eval()
            folder = tmp_path_factory.mktemp("hf") / family
            model.save_pretrained(folder)
            made[family] = model, folder
        return made[family]

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
