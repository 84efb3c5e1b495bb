"""DynamicViT: before some blocks a small trained network scores the patches, and those of the highest scores stay.

Source: Rao et al., DynamicViT: Efficient Vision Transformers with Dynamic Token Sparsification, NeurIPS 2021, section
3.2. The names of the tensors are those of its published checkpoints.

Shapes: P patches, C channels, B images, N tokens.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from exporter.reduction.keep_highest import keep_highest, keep_regret
from exporter.reduction.learned import Learned
from exporter.reduction.match import Match
from exporter.reduction.method import Method, Site
from exporter.reduction.signals import at_unit_length
from exporter.schedule import all_dropped, all_patches_but_one, keep_of_initial


def decide(tokens_BNC: Tensor, *predictor: Tensor, at: Site) -> Match:
    """Keep the patches that the predictor gives the highest probability of being kept.

    Args:
        tokens_BNC: that enter the block. A dropped one names the one that stays which is most similar to it by cosine.
        predictor: the tensors of `shapes`, of this stage.
        at: 0 < r < N - prefix.
    """
    return keep_highest(
        keep_score(tokens_BNC, *predictor, prefix=at.prefix), at_unit_length(tokens_BNC.float()), at
    )


def regret(tokens_BNC: Tensor, *predictor: Tensor, match: Match, at: Site) -> Tensor:
    """How far a match is from the definition of DynamicViT, (B,): see `keep_highest.keep_regret`."""
    return keep_regret(
        keep_score(tokens_BNC, *predictor, prefix=at.prefix), at_unit_length(tokens_BNC.float()), match, at
    )


def keep_score(tokens_BNC: Tensor, *predictor: Tensor, prefix: int) -> Tensor:
    """The predictor's logit of keeping a patch less that of dropping it; in the order of its probability of keeping.

    LayerNorm and a layer give every patch a vector, of which one half stays its own and the other one is averaged over
    the patches; three layers make two logits of both. Probabilities themselves would be equal where they reach 1.

    Returns:
        (B, N) fp32, 0 for the prefix.
    """
    norm_weight, norm_bias, weight, bias, *rest = predictor
    rows_BPC = tokens_BNC[:, prefix:].float()
    normed_BPC = functional.layer_norm(rows_BPC, norm_weight.shape, norm_weight, norm_bias, 1e-5)
    own_BPC, shared_BPC = functional.gelu(functional.linear(normed_BPC, weight, bias)).chunk(2, dim=2)
    hidden_BPC = torch.cat((own_BPC, shared_BPC.mean(dim=1, keepdim=True).expand_as(own_BPC)), dim=2)
    hidden_BPC = functional.gelu(functional.linear(hidden_BPC, rest[0], rest[1]))
    hidden_BPC = functional.gelu(functional.linear(hidden_BPC, rest[2], rest[3]))
    logits_BP2 = functional.linear(hidden_BPC, rest[4], rest[5])
    return functional.pad(logits_BP2[:, :, 0] - logits_BP2[:, :, 1], (prefix, 0))


def shapes(width: int) -> Mapping[str, tuple[int, ...]]:
    """The tensors of one predictor, by their names in a checkpoint."""
    half, quarter = width // 2, width // 4
    layers = {
        "in_conv.0": ((width,), (width,)),
        "in_conv.1": ((width, width), (width,)),
        "out_conv.0": ((half, width), (half,)),
        "out_conv.2": ((quarter, half), (quarter,)),
        "out_conv.4": ((2, quarter), (2,)),
    }
    return {
        f"{layer}.{kind}": shape
        for layer, both in layers.items()
        for kind, shape in zip(("weight", "bias"), both, strict=True)
    }


METHOD = Method(
    name="dynamicvit",
    reference="Rao et al., DynamicViT: Efficient Vision Transformers with Dynamic Token Sparsification, NeurIPS 2021",
    does="drops the patches that a small trained network before the block scores lowest",
    licence="MIT",
    training="the predictors (score_predictor.* in the file of --weights) and the model, together",
    decide=decide,
    regret=regret,
    reads=("tokens",),
    learned=Learned(prefix="score_predictor", shapes=shapes),
    cap=all_patches_but_one,
    dropped=all_dropped,
    keep=keep_of_initial,
    place="block-start",
    proportional=False,
)
