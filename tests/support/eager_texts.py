"""A text encoder that reduces tokens, in the plainest way: one text at a time, without padding, in float64.

It runs the layers of a transformers BERT or RoBERTa by hand, and shares nothing with the package under test.
"""

import copy
import math
from typing import Any

import torch
from torch import Tensor

from tests.support.definitions import Entering, definition

_DROPPING = {"random": 1, "grid": 1, "evit": 2}
"""Methods that drop patches, with the least number that stays of a text; attention counts every token once."""


@torch.no_grad()
def last_tokens(
    model: Any, ids_N: Tensor, *, method: str, r: int, protect_end: bool = False, **options: Any
) -> tuple[Tensor, Tensor]:
    """The last hidden state of one text without padding, and the sizes of its tokens.

    Args:
        model: a `BertModel`.
        ids_N: of the text.
        method: by name.
        r: tokens that leave each block, fewer where the text has not as many.
        protect_end: whether the last token stands second and never merges.
        options: of the method.

    Returns:
        (K, C) and (K,) float64.
    """
    model = copy.deepcopy(model).double().eval()
    x_NC = model.embeddings(input_ids=ids_N[None])[0]
    if protect_end:
        x_NC = torch.cat((x_NC[:1], x_NC[-1:], x_NC[1:-1]))
    prefix = 2 if protect_end else 1
    sizes_N = torch.ones(len(x_NC), dtype=torch.float64)
    drops = method in _DROPPING
    for block, layer in enumerate(model.encoder.layer):
        keys_HND, values_HND, row_N, attended_NC = _attend(
            layer.attention.self, x_NC, None if drops else sizes_N
        )
        x_NC = layer.attention.output(attended_NC[None], x_NC[None])[0]
        most = max(len(x_NC) - prefix - _DROPPING.get(method, 1), 0)
        removed = min(r, most) if drops or method == "diffrate" else r
        if method == "ppt":
            removed = min(r, (len(x_NC) - prefix) // 2)
        leaving = definition(method)(
            Entering(
                tokens_NC=x_NC,
                sizes_N=sizes_N,
                keys_HND=keys_HND,
                values_HND=values_HND,
                row_N=row_N,
                removed=removed,
                dropped=removed if drops else 0,
                prefix=prefix,
                block=block,
                blocks=len(model.encoder.layer),
                options=options,
            )
        )
        x_NC, sizes_N = leaving.tokens_KC, leaving.sizes_K
        x_NC = layer.output(layer.intermediate(x_NC[None]), x_NC[None])[0]
    return x_NC, sizes_N


def unit_mean(tokens_KC: Tensor, sizes_K: Tensor) -> Tensor:
    """The size-weighted mean, of unit length, (C,)."""
    shares_K = sizes_K / sizes_K.sum()
    mean_C = torch.stack([share * token for share, token in zip(shares_K, tokens_KC, strict=True)]).sum(dim=0)
    unit_C: Tensor = mean_C / mean_C.norm()
    return unit_C


def _attend(attention: Any, x_NC: Tensor, sizes_N: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Keys, values, the first token's attention to every token, and what is attended to."""
    heads = attention.num_attention_heads
    queries, keys, values = (
        linear(x_NC).reshape(len(x_NC), heads, -1).transpose(0, 1)
        for linear in (attention.query, attention.key, attention.value)
    )
    logits = queries @ keys.transpose(1, 2) / math.sqrt(queries.shape[2])
    weights = (logits if sizes_N is None else logits + sizes_N.log()).softmax(dim=2)
    return keys, values, weights[:, 0].mean(dim=0), (weights @ values).transpose(0, 1).reshape(x_NC.shape)
