"""The image towers that the eager merge knows: where each keeps its blocks, prefix tokens and pooling head.

A head that reads single tokens needs nothing. A mean over patches becomes a mean weighted by size; attention
pooling gets the log-size bias on its keys, as every other attention does.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import open_clip.transformer
import timm.models.vision_transformer
import torch
import torchvision.models.vision_transformer
from timm.layers.attention_pool import AttentionPoolLatent
from timm.models.deit import VisionTransformerDistilled
from torch import Tensor, nn
from transformers.modeling_outputs import ImageClassifierOutput
from transformers.models.audio_spectrogram_transformer.modeling_audio_spectrogram_transformer import ASTModel
from transformers.models.clip.modeling_clip import CLIPVisionModel
from transformers.models.dinov2.modeling_dinov2 import Dinov2Backbone, Dinov2Model
from transformers.models.dinov2_with_registers.modeling_dinov2_with_registers import (
    Dinov2WithRegistersForImageClassification,
    Dinov2WithRegistersModel,
)
from transformers.models.siglip.modeling_siglip import SiglipVisionModel
from transformers.models.vit.modeling_vit import ViTModel

from tests.support.eager_blocks import attention, multihead_qkv, split_heads
from tests.support.eager_state import MergeState

HeadMaker = Callable[[MergeState], Callable[..., Any]]


@dataclass(frozen=True, kw_only=True)
class Tower:
    """An image tower: its blocks in order, the number of prefix tokens, and what of its head to replace.

    `head` holds (owner, method name, maker of the replacement).
    """

    blocks: list[nn.Module]
    prefix: int
    head: list[tuple[nn.Module, str, HeadMaker]] = field(default_factory=list)


def find_tower(model: nn.Module) -> Tower:
    """Return the outermost image tower inside `model`, which may be a tower itself or wrap one.

    Raises:
        TypeError: there is none that this module knows.
    """
    for module in model.modules():
        tower = tower_of(module)
        if tower is not None:
            return tower
    raise TypeError(f"no image tower known inside {type(model).__name__}")


def tower_of(module: Any) -> Tower | None:
    """Return the tower that this very module is, if any."""
    kind = type(module)
    if kind in (timm.models.vision_transformer.VisionTransformer, VisionTransformerDistilled):
        return Tower(
            blocks=list(module.blocks), prefix=module.num_prefix_tokens, head=list(timm_head(module))
        )
    if kind is torchvision.models.vision_transformer.VisionTransformer:
        return Tower(blocks=list(module.encoder.layers), prefix=1)
    if kind is open_clip.transformer.VisionTransformer:
        blocks = list(module.transformer.resblocks)
        return Tower(blocks=blocks, prefix=1, head=list(open_clip_head(module)))
    return transformers_tower_of(module)


def transformers_tower_of(module: Any) -> Tower | None:
    """Return the tower that this very module of transformers is, if any."""
    if isinstance(module, CLIPVisionModel):
        return Tower(blocks=list(module.encoder.layers), prefix=1)
    if isinstance(module, SiglipVisionModel):
        head: list[tuple[nn.Module, str, HeadMaker]] = [(module.head, "forward", siglip_pool(module.head))]
        return Tower(blocks=list(module.encoder.layers), prefix=0, head=head)
    if isinstance(module, ViTModel):
        return Tower(blocks=list(module.layers), prefix=1)
    if isinstance(module, ASTModel):
        return Tower(blocks=list(module.layers), prefix=2)
    if isinstance(module, Dinov2Model | Dinov2Backbone):
        return Tower(blocks=list(module.encoder.layer), prefix=1)
    if isinstance(module, Dinov2WithRegistersModel):
        return Tower(blocks=list(module.encoder.layer), prefix=1 + module.config.num_register_tokens)
    if isinstance(module, Dinov2WithRegistersForImageClassification):
        backbone = module.dinov2_with_registers
        prefix = 1 + module.config.num_register_tokens
        head = [(module, "forward", dinov2_registers_classifier(module, prefix))]
        return Tower(blocks=list(backbone.encoder.layer), prefix=prefix, head=head)
    return None


def timm_head(vit: Any) -> Iterator[tuple[nn.Module, str, HeadMaker]]:
    """Yield what timm pools patches with: a mean, or a latent query; single tokens need nothing."""
    if vit.global_pool == "avg":
        yield vit, "pool", timm_mean(vit)
    elif vit.global_pool == "map":
        yield vit.attn_pool, "forward", timm_attention_pool(vit.attn_pool)
    elif vit.global_pool not in ("token", ""):
        raise TypeError(f"no plain form of timm's {vit.global_pool!r} pooling over merged tokens")


def timm_mean(vit: Any) -> HeadMaker:
    """Pool as timm does: the mean over the patches (or over all tokens, where the model is set so)."""
    first = 0 if vit.pool_include_prefix else vit.num_prefix_tokens
    return lambda state: lambda x_BNC: state.mean(x_BNC[:, first:])


def timm_attention_pool(pool: Any) -> HeadMaker:
    """Pool as timm does for SigLIP: one latent query over the patches, then an MLP."""
    if type(pool) is not AttentionPoolLatent or pool.pos_embed is not None or pool.pool != "token":
        raise TypeError("only timm's latent attention pooling without positions is written out here")

    def make(state: MergeState) -> Callable[..., Any]:
        def forward(x_BNC: Tensor) -> Tensor:
            latent_BQC = pool.q(pool.latent).expand(len(x_BNC), -1, -1)
            k_BNC, v_BNC = pool.kv(x_BNC).chunk(2, dim=2)
            q_BHQD = pool.q_norm(split_heads(latent_BQC, pool.num_heads))
            k_BHND = pool.k_norm(split_heads(k_BNC, pool.num_heads))
            v_BHND = split_heads(v_BNC, pool.num_heads)
            bias_B11N = state.key_bias(x_BNC.shape[1])
            pooled_BHQD = attention(q_BHQD, k_BHND, v_BHND, pool.head_dim**-0.5, bias_B11N)
            pooled_BQC = pool.proj(pooled_BHQD.transpose(1, 2).flatten(2))
            output_BQC: Tensor = pooled_BQC + pool.mlp(pool.norm(pooled_BQC))
            return output_BQC[:, 0]

        return forward

    return make


def siglip_pool(head: Any) -> HeadMaker:
    """Pool as transformers does for SigLIP: a probe attends to the patches, then an MLP."""
    mha = head.attention

    def make(state: MergeState) -> Callable[..., Any]:
        def forward(x_BNC: Tensor) -> Tensor:
            q_BHQD, _, _ = multihead_qkv(mha, head.probe.expand(len(x_BNC), -1, -1))
            _, k_BHND, v_BHND = multihead_qkv(mha, x_BNC)
            bias_B11N = state.key_bias(x_BNC.shape[1])
            pooled_BHQD = attention(q_BHQD, k_BHND, v_BHND, mha.head_dim**-0.5, bias_B11N)
            pooled_BQC = mha.out_proj(pooled_BHQD.transpose(1, 2).flatten(2))
            output_BQC: Tensor = pooled_BQC + head.mlp(head.layernorm(pooled_BQC))
            return output_BQC[:, 0]

        return forward

    return make


def dinov2_registers_classifier(classifier: Any, prefix: int) -> HeadMaker:
    """Classify as transformers does for DINOv2: the class token beside the mean of the patches."""

    def make(state: MergeState) -> Callable[..., Any]:
        def forward(pixel_values: Tensor, **_options: object) -> ImageClassifierOutput:
            x_BNC = classifier.dinov2_with_registers(pixel_values).last_hidden_state
            pooled = torch.cat([x_BNC[:, 0], state.mean(x_BNC[:, prefix:])], dim=1)
            return ImageClassifierOutput(logits=classifier.classifier(pooled))

        return forward

    return make


def open_clip_head(vit: Any) -> Iterator[tuple[nn.Module, str, HeadMaker]]:
    """Yield what open_clip pools with: the class token, or the mean of the patches."""
    if vit.attn_pool is not None or vit.pool_type not in ("tok", "avg"):
        raise TypeError("no plain form of open_clip's attentional pooling")
    if vit.pool_type == "avg":
        yield vit, "_global_pool", lambda state: lambda x_BNC: (state.mean(x_BNC[:, 1:]), x_BNC[:, 1:])
