"""Token merging hooked onto the libraries' own modules, plainly: what the compiled programs must equal.

Every pre-norm block runs as `x + attention`, merge, `+ mlp`, with the attention written out as
softmax(q k^T * scale + log size). The image tower of a model is found by type; its blocks and its head are
replaced for one call and put back afterwards. No code of the package under test is used.

Shape suffixes: B images, N tokens that enter a block, H heads, D channels per head, C channels.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tests.support.eager_blocks import attention, block_parts
from tests.support.eager_state import COMPARED, MergeState, Reduction
from tests.support.eager_towers import find_tower
from tests.support.matching import Matching

Forward = Callable[..., Any]


class NearTieError(AssertionError):
    """A decision was so close that rounding could turn it: the inputs are no fair test."""


@dataclass(frozen=True, kw_only=True)
class EagerRun:
    """What one eager run did.

    `output` is a tensor, or a tuple of them; `tokens` are the counts that enter each block, then the final one;
    `sizes_BN` the sizes of the final tokens, in order; `matchings` holds, per block, one matching per image;
    `similarities`, per block that merges, how alike the tokens of an image are that merge.
    """

    output: Any
    sizes_BN: Tensor
    tokens: list[int]
    matchings: list[list[Matching]]
    similarities: list[list[float]]

    @property
    def margin(self) -> float:
        """The smallest difference of scores that decided anything."""
        return min(matching.margin for block in self.matchings for matching in block)


def run_eager_merged(
    model: nn.Module,
    images: Tensor,
    merged: Sequence[int],
    method: str,
    proportional: bool = True,
    *,
    min_margin: float = 1e-6,
) -> Tensor:
    """Run the model with `merged[l]` tokens merged away in block l and return its output.

    Raises:
        NearTieError: some decision was closer than `min_margin`.
    """
    run = trace_eager_merged(model, images, merged, method, proportional)
    if run.margin < min_margin:
        raise NearTieError(f"the closest decision has a margin of {run.margin:.2e}, below {min_margin:.0e}")
    output: Tensor = run.output
    return output


def trace_eager_merged(
    model: nn.Module, images: Tensor, merged: Sequence[int], method: str, proportional: bool = True
) -> EagerRun:
    """Run the model as `run_eager_merged` does and return everything that happened on the way."""
    return trace_eager_reduced(
        model,
        images,
        Reduction(removed=merged, method=method, options=COMPARED.get(method, {}), proportional=proportional),
    )


def trace_eager_reduced(model: nn.Module, images: Tensor, asked: Reduction) -> EagerRun:
    """Run the model with its tokens reduced by any method, and return everything that happened on the way."""
    merged = asked.removed
    if model.training:
        raise ValueError("the model must be in eval mode")
    tower = find_tower(model)
    if len(merged) != len(tower.blocks):
        raise ValueError(f"{len(merged)} merge counts for {len(tower.blocks)} blocks")
    state = MergeState(asked=asked, prefix=tower.prefix)
    with torch.no_grad(), ExitStack() as stack:
        for block in tower.blocks:
            stack.enter_context(replaced(block, "forward", merging_forward(block, state)))
        for owner, name, make in tower.head:
            stack.enter_context(replaced(owner, name, make(state)))
        if hasattr(model, "whole"):  # one of `tests.support.dense_models`
            stack.enter_context(replaced(model, "whole", state.whole))
        output = tensor_of(model(images))
    assert len(state.matchings) == len(merged), "some blocks did not run, or ran twice"
    assert state.size_BN is not None
    return EagerRun(
        output=output,
        sizes_BN=state.size_BN,
        tokens=state.tokens,
        matchings=state.matchings,
        similarities=state.similarities,
    )


def tensor_of(output: Any) -> Any:
    """Return a model's output itself (or several), or the field of it that a served model is used for."""
    if isinstance(output, Tensor) or type(output) is tuple:
        return output
    for field in ("image_embeds", "logits", "pooler_output", "last_hidden_state"):
        value = getattr(output, field, None)
        if isinstance(value, Tensor):
            return value
    raise TypeError(f"no tensor in {type(output).__name__}")


@contextmanager
def replaced(owner: nn.Module, name: str, function: Forward) -> Iterator[None]:
    """Let `owner.name` be `function`, as an attribute of this one object, for a while."""
    assert name not in vars(owner), f"{name} is replaced already"
    setattr(owner, name, function)
    try:
        yield
    finally:
        delattr(owner, name)


def merging_forward(block: nn.Module, state: MergeState) -> Forward:
    """Return the forward of one block, whatever its library, with the merge between attention and MLP."""
    parts = block_parts(block)

    def forward(x_BNC: Tensor, *_masks: object, **_options: object) -> Tensor:
        state.begin(x_BNC)
        q_BHND, k_BHND, v_BHND = parts.qkv(x_BNC)
        bias_B11N = state.key_bias(x_BNC.shape[1])
        attended_BHND = attention(q_BHND, k_BHND, v_BHND, parts.scale, bias_B11N)
        row_BH1N = (q_BHND[:, :, :1] @ k_BHND.transpose(2, 3) * parts.scale + bias_B11N).softmax(dim=-1)
        x_BNC = x_BNC + parts.project(attended_BHND.transpose(1, 2).flatten(2))
        x_BNC = state.merge(x_BNC, k_BHND, v_BHND, row_BH1N.mean(dim=1)[:, 0])
        return x_BNC + parts.mlp(x_BNC)

    return forward
