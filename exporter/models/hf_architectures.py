"""Which Hugging Face classes this room loads, what it takes from each, and how each family sees photos.

Literal data for `hf_source`: an architecture, as `config.json` names it, maps to a tower per input kind.
"""

from dataclasses import dataclass
from typing import Literal

from exporter.models.loaded import OutputName
from exporter.models.preprocess import Preprocess, ToRGB
from exporter.models.resize import Interpolation, ResizeMode, exact_fraction

Pick = Literal["logits", "image_embeds", "text_embeds", "pooler_output", "class_token"]


@dataclass(frozen=True, kw_only=True)
class HFTower:
    """One tower of an architecture.

    Attributes:
        class_name: The transformers class to instantiate.
        pick: What is taken of its output object; `class_token` is the first token of the last hidden state.
        output_name: What that is called in the bundle.
        dropped: Prefixes of checkpoint keys that belong to other parts of the architecture.
        sub_config: The part of the configuration that the class takes; None is all of it.
        arguments: Further arguments of the class.
    """

    class_name: str
    pick: Pick
    output_name: OutputName
    dropped: tuple[str, ...] = ()
    sub_config: Literal["vision_config", "text_config"] | None = None
    arguments: tuple[tuple[str, bool], ...] = ()


_NO_POOLER = (("add_pooling_layer", False),)
_IMAGE_SIDE = ("vision_model.", "visual_projection.")
_TEXT_SIDE = ("text_model.", "text_projection.")
_TEMPERATURE = ("logit_scale", "logit_bias")


def _classifier(class_name: str) -> HFTower:
    return HFTower(class_name=class_name, pick="logits", output_name="logits", dropped=("mask_token",))


def _embedding(class_name: str, pick: Pick, side: Literal["vision_config", "text_config"]) -> HFTower:
    other = _TEXT_SIDE if side == "vision_config" else _IMAGE_SIDE
    return HFTower(
        class_name=class_name,
        pick=pick,
        output_name="embedding",
        dropped=other + _TEMPERATURE,
        sub_config=side,
    )


IMAGE_TOWERS: dict[str, HFTower] = {
    "ViTForImageClassification": _classifier("ViTForImageClassification"),
    "ViTModel": HFTower(
        class_name="ViTModel",
        pick="class_token",
        output_name="features",
        dropped=("pooler.",),
        arguments=_NO_POOLER,
    ),
    "ViTMAEModel": HFTower(
        class_name="ViTModel",
        pick="class_token",
        output_name="features",
        dropped=("decoder.",),
        arguments=_NO_POOLER,
    ),
    "ViTMAEForPreTraining": HFTower(
        class_name="ViTModel",
        pick="class_token",
        output_name="features",
        dropped=("decoder.",),
        arguments=_NO_POOLER,
    ),
    "DeiTForImageClassification": _classifier("DeiTForImageClassification"),
    "DeiTForImageClassificationWithTeacher": _classifier("DeiTForImageClassificationWithTeacher"),
    "DeiTModel": HFTower(
        class_name="DeiTModel",
        pick="class_token",
        output_name="features",
        dropped=("pooler.",),
        arguments=_NO_POOLER,
    ),
    "Dinov2ForImageClassification": _classifier("Dinov2ForImageClassification"),
    "Dinov2Model": HFTower(class_name="Dinov2Model", pick="pooler_output", output_name="features"),
    "Dinov2WithRegistersForImageClassification": _classifier("Dinov2WithRegistersForImageClassification"),
    "Dinov2WithRegistersModel": HFTower(
        class_name="Dinov2WithRegistersModel", pick="pooler_output", output_name="features"
    ),
    "CLIPModel": _embedding("CLIPVisionModelWithProjection", "image_embeds", "vision_config"),
    "CLIPVisionModelWithProjection": _embedding(
        "CLIPVisionModelWithProjection", "image_embeds", "vision_config"
    ),
    "CLIPVisionModel": HFTower(class_name="CLIPVisionModel", pick="pooler_output", output_name="features"),
    "CLIPForImageClassification": _classifier("CLIPForImageClassification"),
    "SiglipModel": _embedding("SiglipVisionModel", "pooler_output", "vision_config"),
    "SiglipVisionModel": _embedding("SiglipVisionModel", "pooler_output", "vision_config"),
    "SiglipForImageClassification": _classifier("SiglipForImageClassification"),
}

TEXT_TOWERS: dict[str, HFTower] = {
    "CLIPModel": _embedding("CLIPTextModelWithProjection", "text_embeds", "text_config"),
    "CLIPTextModelWithProjection": _embedding("CLIPTextModelWithProjection", "text_embeds", "text_config"),
    "SiglipModel": _embedding("SiglipTextModel", "pooler_output", "text_config"),
    "SiglipTextModel": _embedding("SiglipTextModel", "pooler_output", "text_config"),
}

# What a configuration without `architectures` stands for.
DEFAULT_ARCHITECTURES: dict[str, str] = {
    "vit": "ViTModel",
    "vit_mae": "ViTMAEModel",
    "deit": "DeiTModel",
    "dinov2": "Dinov2Model",
    "dinov2_with_registers": "Dinov2WithRegistersModel",
    "clip": "CLIPModel",
    "clip_vision_model": "CLIPVisionModelWithProjection",
    "clip_text_model": "CLIPTextModelWithProjection",
    "siglip": "SiglipModel",
    "siglip_vision_model": "SiglipVisionModel",
    "siglip_text_model": "SiglipTextModel",
}

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

_Look = tuple[ResizeMode, Interpolation, tuple[int, int], tuple[tuple[float, ...], tuple[float, ...]], ToRGB]

# Only for checkpoints without a processor: what the family's published checkpoints use. The third is what is
# cropped, of what the resize goes to.
_LOOKS: dict[str, _Look] = {
    "vit": ("squash", "bilinear", (224, 224), _HALF, "first"),
    "vit_mae": ("squash", "bicubic", (224, 224), _IMAGENET, "first"),
    "deit": ("squash", "bicubic", (224, 256), _IMAGENET, "first"),
    "dinov2": ("crop", "bicubic", (224, 256), _IMAGENET, "over_white"),
    "dinov2_with_registers": ("crop", "bicubic", (224, 256), _IMAGENET, "over_white"),
    "clip": ("crop", "bicubic", (224, 224), _CLIP, "over_white"),
    "siglip": ("squash", "bicubic", (224, 224), _HALF, "over_white"),
}


def family_preprocess(model_type: str, size: int) -> Preprocess:
    """The preprocessing of a family's published checkpoints."""
    family = model_type.removesuffix("_vision_model")
    resize_mode, interpolation, (crop_to, resize_to), (mean, std), to_rgb = _LOOKS[family]
    return Preprocess(
        image_size=(size, size),
        interpolation=interpolation,
        crop_fraction=exact_fraction(size, size * resize_to // crop_to),
        mean=mean,
        std=std,
        resize_mode=resize_mode,
        to_rgb=to_rgb,
        kernel="torch",
    )
