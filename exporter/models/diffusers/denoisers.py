"""What a denoiser is called with: latents, the scheduler's step, and what the image is of.

In: a class of diffusers and its configuration. Out: a `Denoiser`: named inputs of static shapes in the order of the
call, and the module that passes them on. Conditions that this does not cover are refused by name.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from exporter.errors import ModelUnavailableError, quoted
from exporter.models.loaded import ExampleInput
from exporter.models.request import ImageSize

_CLIP_LENGTH = 77
"""Text states of Stable Diffusion's CLIP encoders."""

_T5_LENGTH = 120
"""Text states that PixArt was trained with."""

CLASS_NAMES = (
    "UNet2DConditionModel",
    "DiTTransformer2DModel",
    "PixArtTransformer2DModel",
    "Transformer2DModel",
)


@dataclass(frozen=True, kw_only=True)
class Denoiser:
    """A class of diffusers, and how it is called.

    Attributes:
        class_name: of diffusers.
        call: wraps the model, so that it takes the inputs by position and returns a tensor.
        inputs: in the order of the call.
        largest_batch: up to which the class's code computes the same way; None where it asks for no batch.
    """

    class_name: str
    call: Callable[[nn.Module], nn.Module]
    inputs: Mapping[str, ExampleInput]
    largest_batch: int | None = None


class DenoiserCall(nn.Module):
    """A model of diffusers, called with its inputs by position; returns a tensor."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model


class UNetCall(DenoiserCall):
    """A UNet of Stable Diffusion, with the further conditions of SDXL or without."""

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        text_embeds: Tensor | None = None,
        time_ids: Tensor | None = None,
    ) -> Tensor:
        """Latents (B, C, H, W), steps (B,), text states (B, L, D) [, (B, E), (B, 6)] to (B, C, H, W)."""
        added = None if text_embeds is None else {"text_embeds": text_embeds, "time_ids": time_ids}
        (denoised,) = self.model(
            sample, timestep, encoder_hidden_states, added_cond_kwargs=added, return_dict=False
        )
        return tensor(denoised)


class DiTCall(DenoiserCall):
    """A diffusion transformer that is told a class."""

    def forward(self, hidden_states: Tensor, timestep: Tensor, class_labels: Tensor) -> Tensor:
        """Latents (B, C, H, W), steps (B,), int64 classes (B,) to (B, C', H, W)."""
        (denoised,) = self.model(
            hidden_states, timestep=timestep, class_labels=class_labels, return_dict=False
        )
        return tensor(denoised)


class PixArtCall(DenoiserCall):
    """A diffusion transformer that reads text states."""

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor,
        resolution: Tensor | None = None,
        aspect_ratio: Tensor | None = None,
    ) -> Tensor:
        """Latents (B, C, H, W), steps (B,), text states (B, L, D), int64 mask (B, L) to (B, C', H, W)."""
        (denoised,) = self.model(
            hidden_states,
            encoder_hidden_states=encoder_hidden_states,
            timestep=timestep,
            added_cond_kwargs={"resolution": resolution, "aspect_ratio": aspect_ratio},
            encoder_attention_mask=encoder_attention_mask,
            return_dict=False,
        )
        return tensor(denoised)


def tensor(value: Any) -> Tensor:
    """A value of a library without types."""
    assert isinstance(value, Tensor)
    return value


def denoiser(
    spelling: str, config: Mapping[str, Any], size: ImageSize, steps: int, length: int | None
) -> Denoiser:
    """How a model is called.

    Args:
        spelling: the model, as messages name it.
        config: of the model, with the class's defaults for what it does not say.
        size: of the latents.
        steps: of the scheduler that it was trained with.
        length: text states; None for as many as the pipeline of this class has.

    Raises:
        ModelUnavailableError: another class, or conditions that are not covered.
    """
    name = config["_class_name"]
    if name == "Transformer2DModel":
        by_norm = {"ada_norm_zero": "DiTTransformer2DModel", "ada_norm_single": "PixArtTransformer2DModel"}
        name = by_norm.get(config.get("norm_type", ""), name)
    latents = _numbers(int(config["in_channels"]), *size)
    step = ExampleInput(shape=(), dtype=torch.float32, steps=steps)
    match name:
        case "UNet2DConditionModel":
            return _unet(spelling, config, {"sample": latents, "timestep": step}, length or _CLIP_LENGTH)
        case "DiTTransformer2DModel":
            classes = ExampleInput(shape=(), dtype=torch.int64, vocabulary=int(config["num_embeds_ada_norm"]))
            inputs = {"hidden_states": latents, "timestep": step, "class_labels": classes}
            return Denoiser(class_name=name, call=DiTCall, inputs=inputs)
        case "PixArtTransformer2DModel":
            return _pixart(config, {"hidden_states": latents, "timestep": step}, length or _T5_LENGTH)
        case _:
            raise ModelUnavailableError(
                f"{spelling} is a {quoted(name)} of diffusers: expected one of {', '.join(CLASS_NAMES[:3])}"
            )


def _unet(spelling: str, config: Mapping[str, Any], inputs: dict[str, ExampleInput], length: int) -> Denoiser:
    for key in ("class_embed_type", "num_class_embeds", "time_cond_proj_dim"):
        if config.get(key) is not None:
            raise ModelUnavailableError(
                f"{spelling} is a UNet with {key} {quoted(config[key])}: expected one that takes latents, a step and "
                "text states (Stable Diffusion, SDXL)"
            )
    width = config["encoder_hid_dim"] or config["cross_attention_dim"]
    if config["encoder_hid_dim_type"] not in (None, "text_proj") or not isinstance(width, int):
        raise ModelUnavailableError(f"{spelling} is a UNet whose text states have no single width")
    inputs["encoder_hidden_states"] = _numbers(length, width)
    match config["addition_embed_type"]:
        case None:
            pass
        case "text_time":
            times = 6
            pooled = (
                config["projection_class_embeddings_input_dim"] - times * config["addition_time_embed_dim"]
            )
            inputs |= {"text_embeds": _numbers(pooled), "time_ids": _numbers(times)}
        case other:
            raise ModelUnavailableError(
                f"{spelling} is a UNet with addition_embed_type {quoted(other)}: expected none, or text_time (SDXL)"
            )
    # Its upsampling copies the tensor for batches of 64 and more, which is no number of its own.
    return Denoiser(class_name="UNet2DConditionModel", call=UNetCall, inputs=inputs, largest_batch=63)


def _pixart(config: Mapping[str, Any], inputs: dict[str, ExampleInput], length: int) -> Denoiser:
    width = config["caption_channels"] or config["cross_attention_dim"]
    inputs["encoder_hidden_states"] = _numbers(length, width)
    inputs["encoder_attention_mask"] = ExampleInput(shape=(length,), dtype=torch.int64, vocabulary=2)
    told = config.get("use_additional_conditions")
    if told or (told is None and config["sample_size"] == 128):
        inputs |= {"resolution": _numbers(2), "aspect_ratio": _numbers(1)}
    return Denoiser(class_name="PixArtTransformer2DModel", call=PixArtCall, inputs=inputs)


def _numbers(*shape: int) -> ExampleInput:
    return ExampleInput(shape=shape, dtype=torch.float32)
