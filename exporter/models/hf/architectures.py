"""What no rule can know about the families of transformers: literal data for `rules` and `preprocess`.

Which class is built, and what is taken of its output, follows from the configuration and from the class itself.
"""

from exporter.models.preprocessing.preprocess import Preprocess, ToRGB
from exporter.models.preprocessing.resize import Interpolation, ResizeMode, exact_fraction

# What a configuration without `architectures` stands for, where it is not the family's plain model.
DEFAULT_ARCHITECTURES: dict[str, str] = {
    "clip_vision_model": "CLIPVisionModelWithProjection",
    "clip_text_model": "CLIPTextModelWithProjection",
    "metaclip_2_vision_model": "MetaClip2VisionModelWithProjection",
    "metaclip_2_text_model": "MetaClip2TextModelWithProjection",
}

# Models that hide patches at random, also when they are evaluated: the same weights in a class that sees all of them.
SEES_ALL_PATCHES: dict[str, str] = {"vit_mae": "vit"}

# Heads that are used for pretraining only; what they stand on gives features.
PRETRAINING_HEADS = ("ForMaskedImageModeling", "ForPreTraining")

# Towers whose pooled output is the joint embedding: their two-tower model has no projection.
POOLED_IS_EMBEDDING = ("siglip_vision_model", "siglip_text_model")

# Text towers that were trained with padding attended to: their processors give no mask.
ATTENDS_TO_PADDING = ("siglip_text_model",)

MAE = ("vit_mae",)
"""Families whose weights were pretrained on few patches, which proportional attention does not suit."""

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

_Look = tuple[ResizeMode, Interpolation, tuple[int, int], tuple[tuple[float, ...], tuple[float, ...]], ToRGB]

# Only for checkpoints without a processor: what the family's published checkpoints use, where it is not what the
# family's processor does by default. The third is what is cropped, of what the resize goes to.
_LOOKS: dict[str, _Look] = {
    "vit": ("squash", "bilinear", (224, 224), _HALF, "first"),
    "vit_mae": ("squash", "bicubic", (224, 224), _IMAGENET, "first"),
    "deit": ("squash", "bicubic", (224, 256), _IMAGENET, "first"),
    "dinov2": ("crop", "bicubic", (224, 256), _IMAGENET, "over_white"),
    "dinov2_with_registers": ("crop", "bicubic", (224, 256), _IMAGENET, "over_white"),
    "clip": ("crop", "bicubic", (224, 224), _CLIP, "over_white"),
    "siglip": ("squash", "bicubic", (224, 224), _HALF, "over_white"),
}


def family_of(model_type: str) -> str:
    """The family that a tower belongs to: `clip` of `clip_vision_model`."""
    return model_type.removesuffix("_vision_model")


def family_preprocess(model_type: str, size: tuple[int, int]) -> Preprocess | None:
    """The preprocessing of a family's published checkpoints, of RGB photos; None where the table has none."""
    look = _LOOKS.get(family_of(model_type))
    if look is None:
        return None
    resize_mode, interpolation, (crop_to, resize_to), (mean, std), to_rgb = look
    return Preprocess(
        image_size=size,
        interpolation=interpolation,
        crop_fraction=exact_fraction(size[0], size[0] * resize_to // crop_to),
        mean=mean,
        std=std,
        resize_mode=resize_mode,
        to_rgb=to_rgb,
        kernel="torch",
    )
