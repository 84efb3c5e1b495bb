"""One small real model of every family: the libraries' own classes with a few blocks.

The weights are seeded and leave no part idle. Each model takes its `images()`, (B, 3, 24, 24), cuts them into
36 patches and returns one tensor.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import timm.models.deit
import timm.models.vision_transformer
import torch
import torchvision.models.vision_transformer
from timm.layers.mlp import SwiGLUPacked
from torch import Tensor, nn

IMAGE_SIZE = 24
PATCH_SIZE = 4
PATCHES = (IMAGE_SIZE // PATCH_SIZE) ** 2
WIDTH = 32
HEADS = 4
BLOCKS = 4
OUTPUTS = 10

TIMM: dict[str, Any] = {
    "img_size": IMAGE_SIZE,
    "patch_size": PATCH_SIZE,
    "embed_dim": WIDTH,
    "depth": BLOCKS,
    "num_heads": HEADS,
    "num_classes": OUTPUTS,
}

HUGGING_FACE: dict[str, Any] = {
    "hidden_size": WIDTH,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": HEADS,
    "image_size": IMAGE_SIZE,
    "patch_size": PATCH_SIZE,
}


@dataclass(frozen=True, kw_only=True)
class Family:
    """A family of models by example.

    Attributes:
        name: the family, as the tests are named.
        build: makes the library's own module, weights as the library leaves them.
        prefix: number of prefix tokens.
        output_name: what the served output is: "logits", "embedding" or "features".
        pooling: how the head reads the tokens: "token", "mean", "attention", or "token and mean".
        seed: of weights and images.
    """

    name: str
    build: Callable[[], nn.Module]
    prefix: int
    output_name: str
    pooling: str = "token"
    seed: int

    @property
    def tokens(self) -> int:
        """The number of tokens that enter the first block."""
        return self.prefix + PATCHES

    def model(self) -> nn.Module:
        """Build the model, ready to be captured: eval mode, no gradients, one tensor in, one tensor out."""
        module = self.build()
        randomise(module, self.seed)
        if type(module).__module__.startswith("transformers."):
            module = OneTensorOut(module)
        return module.eval().requires_grad_(False)

    def images(self, batch: int = 2) -> Tensor:
        """Return random images for it, (batch, 3, 24, 24)."""
        generator = torch.Generator().manual_seed(1000 + self.seed)
        return torch.randn(batch, 3, IMAGE_SIZE, IMAGE_SIZE, generator=generator)


class OneTensorOut(nn.Module):
    """A model of transformers, reduced to one tensor in and one tensor out."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower

    def forward(self, images: Tensor) -> Tensor:
        """Return embedding, logits or pooled features, whichever the tower makes first in this order."""
        output = self.tower(pixel_values=images)
        for field in ("image_embeds", "logits", "pooler_output"):
            if getattr(output, field, None) is not None:
                tensor: Tensor = getattr(output, field)
                return tensor
        raise TypeError(f"{type(self.tower).__name__} returns no tensor that is served")


@torch.no_grad()
def randomise(model: nn.Module, seed: int) -> None:
    """Give every parameter a seeded random value that keeps activations of order one and lets it matter.

    Fresh library weights would not do: heads and tokens of zeros, LayerScale of 1e-5, idle norms.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(scaled(module, name, noise))


def scaled(module: nn.Module, name: str, noise: Tensor) -> Tensor:
    """Return unit normal noise shifted and scaled to what this parameter is for."""
    fan_in = noise[0].numel()
    if name.endswith("bias"):
        return 0.1 * noise
    if isinstance(module, nn.LayerNorm):
        return 1 + 0.2 * noise
    if "LayerScale" in type(module).__name__:
        return 0.3 + 0.7 * noise.sigmoid()
    if isinstance(module, (nn.Linear, nn.Conv2d)) or name == "in_proj_weight":
        return noise / math.sqrt(fan_in)
    if name == "proj":  # open_clip's output projection, input channels first
        return noise / math.sqrt(len(noise))
    return 0.5 * noise  # class, register and latent tokens, positions


def timm_vit(**options: Any) -> nn.Module:
    """Build a timm VisionTransformer."""
    vit: nn.Module = timm.models.vision_transformer.VisionTransformer(**(TIMM | options))
    return vit


def timm_deit_distilled() -> nn.Module:
    """Build a distilled DeiT: class and distillation token, two heads averaged."""
    return timm.models.deit.VisionTransformerDistilled(**TIMM)  # type: ignore[no-untyped-call]


def torchvision_vit() -> nn.Module:
    """Build a torchvision VisionTransformer, which goes through nn.MultiheadAttention."""
    vit: nn.Module = torchvision.models.vision_transformer.VisionTransformer(
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
        num_layers=BLOCKS,
        num_heads=HEADS,
        hidden_dim=WIDTH,
        mlp_dim=4 * WIDTH,
        num_classes=OUTPUTS,
    )
    return vit


def open_clip_vit(**options: Any) -> nn.Module:
    """Build open_clip's own visual tower."""
    import open_clip.transformer

    settings: dict[str, Any] = {
        "image_size": IMAGE_SIZE,
        "patch_size": PATCH_SIZE,
        "width": WIDTH,
        "layers": BLOCKS,
        "heads": HEADS,
        "mlp_ratio": 4.0,
        "output_dim": OUTPUTS,
        "act_layer": open_clip.transformer.QuickGELU,
    }
    tower: nn.Module = open_clip.transformer.VisionTransformer(**(settings | options))
    return tower


def of_transformers(class_name: str, **changes: Any) -> nn.Module:
    """Build a model of transformers from its own configuration class."""
    import transformers

    model_class = getattr(transformers, class_name)
    model: nn.Module = model_class(model_class.config_class(**(HUGGING_FACE | changes)))
    return model


# Tokens to merge per block, as a test may ask for them; "capped" asks for more than there is.
SCHEDULES = {
    "constant": (4, 4, 4, 4),
    "decreasing": (10, 6, 3, 0),
    "with zeros": (0, 5, 0, 7),
    "capped": (40, 40, 40, 40),
}

TWO_BLOCKS = Family(
    name="two_blocks", build=partial(timm_vit, depth=2), prefix=1, output_name="logits", seed=1
)
"""Where every block takes seconds to compile."""

# The seed of each family is one that leaves no near tie in any of these schedules, with either method.
FAMILIES = (
    Family(name="timm_vit", build=timm_vit, prefix=1, output_name="logits", seed=1),
    Family(
        name="timm_qk_norm", build=partial(timm_vit, qk_norm=True), prefix=1, output_name="logits", seed=8
    ),
    Family(
        name="timm_mean_pool",  # the class token left out, as in MAE's fine-tuning
        build=partial(timm_vit, global_pool="avg"),
        prefix=1,
        output_name="logits",
        pooling="mean",
        seed=1,
    ),
    Family(
        name="timm_no_class_token",
        build=partial(timm_vit, class_token=False, global_pool="avg"),
        prefix=0,
        output_name="logits",
        pooling="mean",
        seed=5,
    ),
    Family(name="timm_deit_distilled", build=timm_deit_distilled, prefix=2, output_name="logits", seed=1),
    Family(
        name="timm_deit3",  # LayerScale, positions on the patches only
        build=partial(timm_vit, init_values=1e-6, no_embed_class=True),
        prefix=1,
        output_name="logits",
        seed=12,
    ),
    Family(
        name="timm_dinov2_registers",
        build=partial(
            timm_vit,
            init_values=1e-5,
            no_embed_class=True,
            reg_tokens=4,
            num_classes=0,
            mlp_layer=SwiGLUPacked,
        ),
        prefix=5,
        output_name="features",
        seed=0,
    ),
    Family(
        name="timm_siglip",
        build=partial(timm_vit, class_token=False, global_pool="map", num_classes=0),
        prefix=0,
        output_name="embedding",
        pooling="attention",
        seed=5,
    ),
    Family(
        name="timm_clip",
        build=partial(timm_vit, pre_norm=True, act_layer="quick_gelu"),
        prefix=1,
        output_name="embedding",
        seed=11,
    ),
    Family(name="torchvision_vit", build=torchvision_vit, prefix=1, output_name="logits", seed=2),
    Family(name="open_clip_vit", build=open_clip_vit, prefix=1, output_name="embedding", seed=7),
    Family(
        name="open_clip_mean_pool",
        build=partial(open_clip_vit, pool_type="avg", ls_init_value=1e-5),
        prefix=1,
        output_name="embedding",
        pooling="mean",
        seed=13,
    ),
    Family(
        name="hf_vit",
        build=partial(
            of_transformers, "ViTForImageClassification", intermediate_size=4 * WIDTH, num_labels=OUTPUTS
        ),
        prefix=1,
        output_name="logits",
        seed=12,
    ),
    Family(
        name="hf_clip",
        build=partial(
            of_transformers,
            "CLIPVisionModelWithProjection",
            intermediate_size=4 * WIDTH,
            projection_dim=OUTPUTS,
        ),
        prefix=1,
        output_name="embedding",
        seed=15,
    ),
    Family(
        name="hf_siglip",
        build=partial(of_transformers, "SiglipVisionModel", intermediate_size=4 * WIDTH),
        prefix=0,
        output_name="embedding",
        pooling="attention",
        seed=12,
    ),
    Family(
        name="hf_dinov2",
        build=partial(of_transformers, "Dinov2Model"),
        prefix=1,
        output_name="features",
        seed=5,
    ),
    Family(
        name="hf_dinov2_registers",
        build=partial(of_transformers, "Dinov2WithRegistersModel"),
        prefix=5,
        output_name="features",
        seed=11,
    ),
    Family(
        name="hf_dinov2_registers_classifier",
        build=partial(of_transformers, "Dinov2WithRegistersForImageClassification", num_labels=OUTPUTS),
        prefix=5,
        output_name="logits",
        pooling="token and mean",
        seed=11,
    ),
)

FAMILY_PARAMS = tuple(pytest.param(family, id=family.name) for family in FAMILIES)


def family(name: str) -> Family:
    """Return the family of this name."""
    return next(family for family in FAMILIES if family.name == name)
