"""The blocks of each library taken apart, so that one plain forward runs them all.

Shape suffixes: B images, N tokens that enter a block, H heads, D channels per head, C channels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import open_clip.transformer
import timm.models.vision_transformer
import torchvision.models.vision_transformer
from timm.layers.attention import Attention
from torch import Tensor, nn
from transformers.models.audio_spectrogram_transformer.modeling_audio_spectrogram_transformer import ASTLayer
from transformers.models.clip.modeling_clip import CLIPEncoderLayer
from transformers.models.dinov2.modeling_dinov2 import Dinov2Layer
from transformers.models.dinov2_with_registers.modeling_dinov2_with_registers import Dinov2WithRegistersLayer
from transformers.models.siglip.modeling_siglip import SiglipEncoderLayer
from transformers.models.vit.modeling_vit import ViTLayer


def attention(q_BHND: Tensor, k_BHND: Tensor, v_BHND: Tensor, scale: float, bias_B11N: Tensor) -> Tensor:
    """Return softmax(q k^T * scale + bias) v."""
    logits_BHNN = q_BHND @ k_BHND.transpose(2, 3) * scale + bias_B11N
    return logits_BHNN.softmax(dim=-1) @ v_BHND


def split_heads(x_BNC: Tensor, heads: int) -> Tensor:
    """Return (B, N, H*D) as (B, H, N, D)."""
    images, tokens, channels = x_BNC.shape
    return x_BNC.reshape(images, tokens, heads, channels // heads).transpose(1, 2)


@dataclass(frozen=True, kw_only=True)
class BlockParts:
    """A pre-norm block in pieces: x + project(attention(qkv(x))), then x + mlp(x), LayerScale included."""

    qkv: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
    scale: float
    project: Callable[[Tensor], Tensor]
    mlp: Callable[[Tensor], Tensor]


def block_parts(block: Any) -> BlockParts:
    """Take a block apart by the library that it comes from."""
    kind = type(block)
    if kind is timm.models.vision_transformer.Block:
        return timm_parts(block)
    if kind is torchvision.models.vision_transformer.EncoderBlock:
        return torchvision_parts(block)
    if kind is open_clip.transformer.ResidualAttentionBlock:
        return open_clip_parts(block)
    if kind is open_clip.transformer.CustomResidualAttentionBlock:
        return open_clip_custom_parts(block)
    if kind in (CLIPEncoderLayer, SiglipEncoderLayer):
        return clip_parts(block)
    if kind in (Dinov2Layer, Dinov2WithRegistersLayer):
        return dinov2_parts(block)
    if kind in (ViTLayer, ASTLayer):
        return hf_vit_parts(block)
    raise TypeError(f"no plain form of {kind.__module__}.{kind.__name__}")


def timm_parts(block: Any) -> BlockParts:
    """Take timm's block apart: one qkv projection, norms of q, k and the attended values, LayerScale."""
    attn = block.attn
    if type(attn) is not Attention or attn.gate is not None:
        raise TypeError("only timm's ungated standard attention is written out here")

    def qkv(x_BNC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q_BNC, k_BNC, v_BNC = attn.qkv(block.norm1(x_BNC)).chunk(3, dim=2)
        heads = attn.num_heads
        q_BHND, k_BHND = attn.q_norm(split_heads(q_BNC, heads)), attn.k_norm(split_heads(k_BNC, heads))
        return q_BHND, k_BHND, split_heads(v_BNC, heads)

    return BlockParts(
        qkv=qkv,
        scale=attn.head_dim**-0.5,
        project=lambda x_BNC: block.ls1(attn.proj(attn.norm(x_BNC))),
        mlp=lambda x_BNC: block.ls2(block.mlp(block.norm2(x_BNC))),
    )


def multihead_qkv(mha: nn.MultiheadAttention, x_BNC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return q, k, v of PyTorch's own multi-head attention, heads split."""
    qkv_BN3C = nn.functional.linear(x_BNC, mha.in_proj_weight, mha.in_proj_bias)
    q_BHND, k_BHND, v_BHND = (split_heads(part, mha.num_heads) for part in qkv_BN3C.chunk(3, dim=2))
    return q_BHND, k_BHND, v_BHND


def torchvision_parts(block: Any) -> BlockParts:
    """Take torchvision's block apart: PyTorch's multi-head attention between two norms."""
    mha = block.self_attention
    return BlockParts(
        qkv=lambda x_BNC: multihead_qkv(mha, block.ln_1(x_BNC)),
        scale=mha.head_dim**-0.5,
        project=mha.out_proj,
        mlp=lambda x_BNC: block.mlp(block.ln_2(x_BNC)),
    )


def open_clip_parts(block: Any) -> BlockParts:
    """Take open_clip's standard block apart: PyTorch's multi-head attention and optional LayerScale."""
    mha = block.attn
    return BlockParts(
        qkv=lambda x_BNC: multihead_qkv(mha, block.ln_1(x_BNC)),
        scale=mha.head_dim**-0.5,
        project=lambda x_BNC: block.ls_1(mha.out_proj(x_BNC)),
        mlp=lambda x_BNC: block.ls_2(block.mlp(block.ln_2(x_BNC))),
    )


def open_clip_custom_parts(block: Any) -> BlockParts:
    """Take open_clip's custom block apart: its own attention with q and k norm and norms inside."""
    attn = block.attn
    if attn.logit_scale is not None or attn.head_scale is not None:
        raise TypeError("only open_clip's dot-product attention without head scales is written out here")

    def qkv(x_BNC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q_BHND, k_BHND, v_BHND = multihead_qkv(attn, block.ln_1(x_BNC))
        return attn.ln_q(q_BHND), attn.ln_k(k_BHND), v_BHND

    return BlockParts(
        qkv=qkv,
        scale=attn.head_dim**-0.5,
        project=lambda x_BNC: block.ls_1(block.ln_attn(attn.out_proj(attn.ln_inner(x_BNC)))),
        mlp=lambda x_BNC: block.ls_2(block.mlp(block.ln_2(x_BNC))),
    )


def projected_qkv(attn: Any, x_BNC: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return q, k, v of an attention with three projections, as transformers names them, heads split."""
    q_BHND, k_BHND, v_BHND = (
        split_heads(projection(x_BNC), heads) for projection in (attn.q_proj, attn.k_proj, attn.v_proj)
    )
    return q_BHND, k_BHND, v_BHND


def clip_parts(block: Any) -> BlockParts:
    """Take a CLIP or SigLIP block of transformers apart."""
    attn = block.self_attn
    return BlockParts(
        qkv=lambda x_BNC: projected_qkv(attn, block.layer_norm1(x_BNC), attn.num_heads),
        scale=attn.head_dim**-0.5,
        project=attn.out_proj,
        mlp=lambda x_BNC: block.mlp(block.layer_norm2(x_BNC)),
    )


def dinov2_parts(block: Any) -> BlockParts:
    """Take a DINOv2 block of transformers apart, with or without registers: LayerScale on both branches."""
    attn = block.attention
    return BlockParts(
        qkv=lambda x_BNC: projected_qkv(attn, block.norm1(x_BNC), attn.num_attention_heads),
        scale=attn.head_dim**-0.5,
        project=lambda x_BNC: block.layer_scale1(attn.o_proj(x_BNC)),
        mlp=lambda x_BNC: block.layer_scale2(block.mlp(block.norm2(x_BNC))),
    )


def hf_vit_parts(block: Any) -> BlockParts:
    """Take a ViT or AST block of transformers apart."""
    attn = block.attention
    return BlockParts(
        qkv=lambda x_BNC: projected_qkv(attn, block.layernorm_before(x_BNC), attn.num_attention_heads),
        scale=attn.head_dim**-0.5,
        project=attn.o_proj,
        mlp=lambda x_BNC: block.mlp(block.layernorm_after(x_BNC)),
    )
