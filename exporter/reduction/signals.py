"""What a method reads of a block, from what the graph holds. See `method.Signal` for the shapes.

Shapes: B images, H heads, N tokens, D channels of a head, C channels.
"""

import torch
from torch import Tensor

from exporter.reduction.sizes import log_size_bias


def split_heads(rows: Tensor, tokens_BNC: Tensor) -> Tensor:
    """(B, H, N, D), or (B * H, N, D) for the batch of `tokens_BNC`, as (B, H, N, D)."""
    return rows if rows.dim() == 4 else rows.reshape(tokens_BNC.shape[0], -1, *rows.shape[1:])


def mean_key(keys_BHND: Tensor) -> Tensor:
    """The similarity metric of ToMe: the mean of the attention keys over heads.

    Returns:
        (B, N, D) fp32, normalised to unit length, so that products are cosines.
    """
    return at_unit_length(keys_BHND.float().mean(1))


def at_unit_length(rows_BND: Tensor) -> Tensor:
    """The same directions at length 1, so that products are cosines; what is 0 stays 0."""
    return rows_BND / lengths(rows_BND).clamp_min(1e-12)


def lengths(rows_BND: Tensor) -> Tensor:
    """Euclidean, (B, N, 1)."""
    length_BN1: Tensor = torch.linalg.vector_norm(rows_BND, dim=-1, keepdim=True)
    return length_BN1


def comparable(compared: Tensor) -> Tensor:
    """What tokens are compared by: their mean keys, or the tokens themselves.

    Args:
        compared: keys (B, H, N, D) or tokens (B, N, C).

    Returns:
        (B, N, D) or (B, N, C) fp32 of unit length.
    """
    return mean_key(compared if compared.dim() == 4 else compared.unsqueeze(1))


def class_row(
    queries_BHMD: Tensor,
    keys_BHND: Tensor,
    sizes_BN1: Tensor | None,
    bias: Tensor | None = None,
    *,
    scale: float,
    absent: bool,
) -> Tensor:
    """The class token's attention to every token: softmax(q_0 k^T * scale + log size + bias), mean over heads.

    Args:
        queries_BHMD: the first one is the class token's.
        keys_BHND: of all tokens.
        sizes_BN1: of the tokens, None where attention does not add log(size).
        bias: of positions, broadcasts to (B, H, M, N); None where attention adds none.
        scale: of attention.
        absent: as in `log_size_bias`.

    Returns:
        (B, N) fp32; every row sums to 1.
    """
    logits_BH1N = (queries_BHMD[:, :, :1] @ keys_BHND.transpose(2, 3)) * scale
    if sizes_BN1 is not None:
        logits_BH1N = logits_BH1N + log_size_bias(sizes_BN1, queries_BHMD, 0, absent=absent)
    if bias is not None:
        logits_BH1N = logits_BH1N + bias[..., :1, :]
    return logits_BH1N.float().softmax(dim=-1).mean(dim=1).squeeze(1)


def significance(class_row_BN: Tensor, values_BHND: Tensor, prefix: int) -> Tensor:
    """The class token's attention to every patch times the length of its value over all heads.

    Source: Fayyaz et al., Adaptive Token Sampling for Efficient Vision Transformers, ECCV 2022, equation 5.

    Returns:
        (B, N - prefix) fp32; every row sums to 1. 0 for an absent token.
    """
    rows_BPC = values_BHND.float()[:, :, prefix:].transpose(1, 2).flatten(2)
    length_BP: Tensor = torch.linalg.vector_norm(rows_BPC, dim=-1)
    score_BP = class_row_BN[:, prefix:] * length_BP
    return score_BP / score_BP.sum(dim=1, keepdim=True).clamp_min(1e-30)
