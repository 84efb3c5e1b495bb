"""Tiny checkpoints whose image tower is a part of something bigger, and what transformers itself makes of images there.

What another model reads is taken where it arrives: at the projector, the Q-Former or the decoder of the saved model.
"""

from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import nn

from tests.support.hf_families import DINO, TEXT, VISION

Compute = Callable[[Any, torch.Tensor], torch.Tensor]

_LLM: dict[str, Any] = {
    **TEXT,
    "num_hidden_layers": 1,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 64,
}
_SIGLIP = {"model_type": "siglip_vision_model", **VISION, "vision_use_head": False}
CLIP = {"model_type": "clip_vision_model", **VISION, "num_hidden_layers": 3}
LLAMA = {"model_type": "llama", **_LLM}
SWIN = {
    "model_type": "swin",
    "embed_dim": 16,
    "depths": [1, 1],
    "num_heads": [1, 2],
    "image_size": 32,
    "patch_size": 4,
}
_BLIP_TEXT = {**TEXT, "num_hidden_layers": 1}
_QFORMER = {
    **{key: value for key, value in TEXT.items() if not key.endswith("token_id")},
    "num_hidden_layers": 1,
    "encoder_hidden_size": 32,
    "cross_attention_frequency": 1,
}
_OPT = {
    "model_type": "opt",
    "vocab_size": 99,
    "hidden_size": 32,
    "ffn_dim": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
    "word_embed_proj_dim": 32,
}
_BLIP_2: dict[str, Any] = {
    "vision_config": VISION,
    "qformer_config": _QFORMER,
    "text_config": _OPT,
    "num_query_tokens": 4,
}
AST = {
    **{key: value for key, value in VISION.items() if key != "image_size"},
    "frequency_stride": 4,
    "time_stride": 8,
    "max_length": 32,
    "num_mel_bins": 16,
    "num_labels": 5,
}
"""Patches of 8 frames by 8 bands, which overlap in the bands: 4 columns of 3."""


def llava(**changes: Any) -> Any:
    """LLaVA with three blocks of CLIP."""
    values = {"vision_config": CLIP, "text_config": LLAMA, "image_token_index": 5}
    return transformers.LlavaForConditionalGeneration._from_config(
        transformers.LlavaConfig(**{**values, **changes})
    )


def trocr() -> Any:
    """A ViT whose tokens a decoder of texts reads."""
    decoder = transformers.TrOCRConfig(
        vocab_size=99, d_model=32, decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=32
    )
    config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        transformers.ViTConfig(**VISION), decoder
    )
    return transformers.VisionEncoderDecoderModel._from_config(config)


def of(class_name: str, **values: Any) -> Callable[[], Any]:
    """Builds a class from its own configuration class."""

    def make() -> Any:
        model_class = getattr(transformers, class_name)
        return model_class._from_config(model_class.config_class(**values))

    return make


def vitpose() -> Any:
    """ViTPose on images that are taller than wide."""
    sizes = {"image_size": [32, 24], "patch_size": [8, 8], "out_features": ["stage2"]}
    backbone = transformers.VitPoseBackboneConfig(**{**DINO, **sizes})
    config = transformers.VitPoseConfig(backbone_config=backbone, num_labels=5)
    return transformers.VitPoseForPoseEstimation._from_config(config)


def backbone() -> Any:
    """A backbone by itself, which gives the map of its last block."""
    return transformers.Dinov2Backbone._from_config(
        transformers.Dinov2Config(**DINO, out_features=["stage2"])
    )


MAKE: dict[str, Callable[[], Any]] = {
    "llava": llava,
    "llava, two layers": lambda: llava(vision_feature_layer=[-3, -1], vision_feature_select_strategy="full"),
    "llava-next": of(
        "LlavaNextForConditionalGeneration",
        vision_config=CLIP,
        text_config=LLAMA,
        image_grid_pinpoints=[[32, 32]],
    ),
    "paligemma": of(
        "PaliGemmaForConditionalGeneration",
        vision_config=_SIGLIP,
        text_config={"model_type": "gemma", **_LLM},
        projection_dim=32,
    ),
    "internvl": of(
        "InternVLForConditionalGeneration",
        vision_config={"model_type": "internvl_vision", **VISION},
        text_config={"model_type": "qwen2", **_LLM},
    ),
    "blip-2": of("Blip2ForConditionalGeneration", **_BLIP_2),
    "blip-2 model": of("Blip2Model", **_BLIP_2),
    "blip retrieval": of(
        "BlipForImageTextRetrieval", vision_config=VISION, text_config=_BLIP_TEXT, image_text_hidden_size=16
    ),
    "blip answers": of("BlipForQuestionAnswering", vision_config=VISION, text_config=_BLIP_TEXT),
    "owl-vit": of("OwlViTForObjectDetection", vision_config=VISION, text_config=TEXT),
    "clipseg": of(
        "CLIPSegForImageSegmentation",
        vision_config=VISION,
        text_config=TEXT,
        extract_layers=[0, 1],
        reduce_dim=8,
        decoder_num_attention_heads=2,
    ),
    "git": of("GitForCausalLM", vision_config=VISION, **_LLM),
    "trocr": trocr,
    "ast": of("ASTModel", **AST),
    "ast classifier": of("ASTForAudioClassification", **AST),
    "vitpose": vitpose,
    "backbone": backbone,
}


def arriving(at: str, call: Callable[[Any, torch.Tensor], Any]) -> Compute:
    """The tokens that a part of the model gets while it is called with images."""

    def compute(model: Any, images: torch.Tensor) -> torch.Tensor:
        kept = list[torch.Tensor]()

        def keep(_part: nn.Module, given: tuple[torch.Tensor, ...], named: dict[str, torch.Tensor]) -> None:
            kept.append(named["encoder_hidden_states"] if "encoder_hidden_states" in named else given[0])

        handle = model.get_submodule(at).register_forward_pre_hook(keep, with_kwargs=True)
        call(model, images)
        handle.remove()
        return kept[0]

    return compute
