"""Tiny checkpoints of every family of transformers that is loaded by rule, and what transformers itself computes.

The expected outputs call the saved model alone: logits, its own `get_image_features`, its pooler, or its class token.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers

VISION: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "image_size": 32,
    "patch_size": 8,
}
TEXT: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 99,
    "max_position_embeddings": 16,
    "bos_token_id": 97,
    "eos_token_id": 98,
    "pad_token_id": 1,
    "sep_token_id": 2,
    "projection_size": 32,
}
DINO = {key: value for key, value in VISION.items() if key != "intermediate_size"}

Expected = Callable[[Any, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Family:
    """One class of transformers.

    Attributes:
        class_name: Its name.
        make: Builds a tiny model of it.
        expected: What transformers computes for images.
        output_name: What the output is called.
        note: Part of a note that loading it gives, beside that its preprocessing is guessed.
    """

    class_name: str
    make: Callable[[], Any]
    expected: Expected
    output_name: str
    note: str = ""


def of(class_name: str, **changes: Any) -> Callable[[], Any]:
    """Builds a class from its own configuration class, with `changes` to the tiny sizes."""

    def make() -> Any:
        model_class = getattr(transformers, class_name)
        config_class = model_class.config_class
        if "vision_config" in getattr(config_class, "sub_configs", {}):
            joint = {"vision_config": VISION | changes, "text_config": TEXT}
            config = config_class(**joint, num_labels=5)
            if hasattr(config, "projection_dim"):
                config = config_class(**joint, num_labels=5, projection_dim=16)
        else:
            config = config_class(**{**VISION, "num_labels": 5, **changes})
        return model_class._from_config(config)

    return make


def logits(model: Any, images: torch.Tensor) -> torch.Tensor:
    """Of a classifier."""
    return model(images).logits  # type: ignore[no-any-return]


def image_features(model: Any, images: torch.Tensor) -> torch.Tensor:
    """Of a model of images and texts."""
    return model.get_image_features(images).pooler_output  # type: ignore[no-any-return]


def image_embeds(model: Any, images: torch.Tensor) -> torch.Tensor:
    """Of a tower with its projection."""
    return model(images).image_embeds  # type: ignore[no-any-return]


def pooled(model: Any, images: torch.Tensor) -> torch.Tensor:
    """Of an encoder with a pooler."""
    return model(images).pooler_output  # type: ignore[no-any-return]


def class_token(model: Any, images: torch.Tensor) -> torch.Tensor:
    """Of an encoder without one."""
    return model(images).last_hidden_state[:, 0]  # type: ignore[no-any-return]


def mean_of_tokens(model: Any, images: torch.Tensor) -> torch.Tensor:
    """Of an encoder that has no class token either."""
    return model(images).last_hidden_state.mean(dim=1)  # type: ignore[no-any-return]


def of_the_part(model: Any, images: torch.Tensor) -> torch.Tensor:
    """Of the image tower inside a model that writes."""
    return pooled(model.vision_model, images)


def before_the_head(model: Any, images: torch.Tensor) -> torch.Tensor:
    """Of what a head for pretraining stands on."""
    return class_token(model.base_model, images)


CLASSIFIERS = (
    "ViTForImageClassification",
    "ViTMSNForImageClassification",
    "DeiTForImageClassification",
    "DeiTForImageClassificationWithTeacher",
    "BeitForImageClassification",
    "Data2VecVisionForImageClassification",
    "Dinov2ForImageClassification",
    "Dinov2WithRegistersForImageClassification",
    "DINOv3ViTForImageClassification",
    "IJepaForImageClassification",
    "CLIPForImageClassification",
    "SiglipForImageClassification",
    "MetaClip2ForImageClassification",
)
OF_TWO = (
    "CLIPModel",
    "SiglipModel",
    "AltCLIPModel",
    "ChineseCLIPModel",
    "BlipModel",
    "MetaClip2Model",
    "Aimv2Model",
    "Tipsv2Model",
    "CLIPSegModel",
)
PROJECTED = ("CLIPVisionModelWithProjection", "MetaClip2VisionModelWithProjection")
POOLED = (
    "CLIPVisionModel",
    "AltCLIPVisionModel",
    "ChineseCLIPVisionModel",
    "BlipVisionModel",
    "MetaClip2VisionModel",
    "Aimv2VisionModel",
    "MLCDVisionModel",
    "Dinov2Model",
    "Dinov2WithRegistersModel",
    "DINOv3ViTModel",
    "PixioModel",
    "BeitModel",
)
BY_CLASS_TOKEN = ("ViTModel", "ViTMSNModel", "DeiTModel", "Data2VecVisionModel")

NO_POOLER_NOTE = "features are the mean of the tokens"

FAMILIES: dict[str, Family] = {
    family.class_name: family
    for family in (
        *(
            Family(name, of(name, **(DINO if "ino" in name else {})), logits, "logits")
            for name in CLASSIFIERS
            if hasattr(transformers, name)
        ),
        *(Family(name, of(name), image_features, "embedding") for name in OF_TWO),
        *(Family(name, of(name), image_embeds, "embedding") for name in PROJECTED),
        *(Family(name, of(name), pooled, "features") for name in POOLED),
        *(Family(name, of(name), class_token, "features") for name in BY_CLASS_TOKEN),
        Family("SiglipVisionModel", of("SiglipVisionModel"), pooled, "embedding"),
        Family("IJepaModel", of("IJepaModel"), mean_of_tokens, "features", NO_POOLER_NOTE),
        Family("BlipForConditionalGeneration", of("BlipForConditionalGeneration"), of_the_part, "features"),
        Family("ViTForMaskedImageModeling", of("ViTForMaskedImageModeling"), before_the_head, "features"),
    )
}
