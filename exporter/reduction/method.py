"""What a reduction method declares: the one thing that a file in `methods/` has to define."""

import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, NamedTuple, Self

from torch import Tensor

from exporter.errors import InternalError, UsageError, nearest
from exporter.reduction.learned import Learned
from exporter.reduction.match import Match
from exporter.schedule import (
    Geometry,
    Place,
    half_of_patches,
    keep_of_current,
    none_dropped,
    none_of_grid,
)

Signal = Literal["mean_keys", "keys", "queries", "values", "tokens", "sizes", "class_row"]
"""What a method may read of a block:

mean_keys: as keys, for a method that reads nothing but their mean over heads: so H may be 1, and hold the mean already.
keys, queries, values: (B, H, N, D), as they enter the dot product.
tokens: (B, N, C), the value that is reduced.
sizes: (B, N, 1) fp32, how many original tokens each one stands for.
class_row: (B, N) fp32, the class token's attention to every token, mean over heads.
"""


AUTO = "auto"
"""The value of an option that is searched for on images without labels."""


def compared_by(metric: str) -> Signal:
    """What a method reads whose metric is `keys` or `tokens`."""
    return "tokens" if metric == "tokens" else "mean_keys"


class Site(NamedTuple):
    """One reduction: how many tokens leave, and where.

    Attributes:
        r: tokens that leave, merged or dropped.
        dropped: how many of them are dropped.
        prefix: protected tokens in front.
        depth: block index / number of blocks.
        tokens: that enter the first block, prefix tokens included; around an attention, that enter it.
        grid: rows and columns of the tokens around an attention; elsewhere None, since tokens have left the grid.
    """

    r: int
    dropped: int
    prefix: int
    depth: float
    tokens: int = 0
    grid: tuple[int, int] | None = None


def nothing(*signals: Any, **options: Any) -> Any:
    """`decide` and `regret` of a method that decides nothing: no graph calls it.

    Raises:
        InternalError: it was called.
    """
    raise InternalError("a method without a decision was asked for one")


@dataclass(frozen=True, kw_only=True)
class NoOptions:
    """Of a method without options."""


def _nothing(**options: object) -> Mapping[str, Any]:
    return {}


def _no_search(blocks: int) -> Mapping[str, Sequence[Any]]:
    return {}


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way to reduce tokens.

    Attributes:
        name: as users write it.
        reference: paper.
        does: what leaves, and what becomes of it, in one line.
        licence: of the code that was published with the idea. This package shares none of it.
        training: what has to be trained before, in a few words.
        decide: `decide(*signals, at=Site, **options) -> Match`; `signals` are those of `reads`, in that order. For a
            method that treats every image alike it is `nothing`, as `regret` is: then there is no match.
        regret: `regret(*signals, match, at=Site, **options) -> (B,)` fp32: by how much a given match misses the
            method's definition, 0 for the method's own; divided by the range of the scores that it compares (1 for
            cosines), so that one tolerance separates a near-tie that rounding turned from a wrong match.
        reads: what the two are given; nothing else is computed.
        combine: `combine(tokens_BNC, sizes_BN1, match, *signals, form=..., **options) -> tokens_BKC, sizes_BK1`, where
            `form` is the one of `selection`, for `merge`; None for the size-weighted mean. Without a decision
            `combine(tokens_BNC, sizes_BN1, at=Site, **options)`.
        needed: `needed(*signals, at=Site, **options) -> (B,)` int64, for a method that keeps another number of tokens
            of every image: how many, prefix tokens included. The schedule gives the slots, of which some stay empty
            (`absent`) where an image needs fewer; where it needs more, the method keeps the best ones.
        calibrates: whether `needed` does not depend on how many slots there are, so that they can be chosen by it.
        learned: tensors of the checkpoint that `decide` and `regret` take after the signals, and `combine` as well.
        cap: `cap(tokens, prefix)`: how many tokens may leave a block.
        dropped: `dropped(r, block, blocks, **options)`: how many of r are dropped and not merged, unless the schedule
            says it.
        pairs: whether a schedule may say it.
        keep: `keep(rate, stage, initial, current, **options)`: how many patches a keep rate leaves, at its stage 0, 1,
            ...; of `initial` patches that enter the model, and `current` that enter the block.
        grid_cap: `grid_cap(grid, **options)`: how many tokens of a feature map may merge around an attention; those are
            all but the targets, which are the last ones of `Match.kept_BK`.
        place: where in the block; before it, only tokens and sizes can be read. Around an attention, tokens are those
            of the residual stream, and what merges is what the attention reads.
        proportional: whether attention adds log(size), where neither user nor model says otherwise.
        absent: whether `combine` may return tokens of size 0, which stand for nothing: no one attends to them, and no
            mean counts them.
        padded: whether it decides among texts of different length: `decide` and `regret` take `padded=True`, and the
            sizes after the other signals, which are 0 for padding (`reduction.padding`).
        options: a frozen dataclass of what users may set, plain values with defaults; its docstring says what each is.
        searched: `searched(blocks)`: by option that may be `auto`, the values that are tried then, for a model with
            this many blocks; the one whose outputs are nearest to the dense model's is taken.
        variant: `variant(**options)`: attributes that these options change, such as what is read, by name.
        kernels: `module:function` of `decide` as fused kernels for CUDA; None where there are none.
    """

    name: str
    reference: str
    does: str
    licence: str
    training: str = "none"
    decide: Callable[..., Match]
    regret: Callable[..., Tensor]
    reads: tuple[Signal, ...] = ("mean_keys",)
    combine: Callable[..., tuple[Tensor, Tensor]] | None = None
    needed: Callable[..., Tensor] | None = None
    calibrates: bool = False
    learned: Learned | None = None
    cap: Callable[[int, int], int] = half_of_patches
    dropped: Callable[..., int] = none_dropped
    pairs: bool = False
    keep: Callable[..., int] = keep_of_current
    grid_cap: Callable[..., int] = none_of_grid
    place: Place = "after-attention"
    proportional: bool = True
    absent: bool = False
    padded: bool = False
    options: type[Any] = NoOptions
    searched: Callable[[int], Mapping[str, Sequence[Any]]] = _no_search
    variant: Callable[..., Mapping[str, Any]] = _nothing
    kernels: str | None = None

    @property
    def decides(self) -> bool:
        """Whether tokens leave by what is in the image."""
        return self.decide is not nothing

    def decision(self, merge: str) -> Callable[..., Match]:
        """`decide`, or what `kernels` names, in a form of `forms.Forms.merge`."""
        if merge == "operators" or self.kernels is None:
            return self.decide
        found: Callable[..., Match] = pkgutil.resolve_name(self.kernels)
        return found

    def __post_init__(self) -> None:
        if self.place == "block-start" and not {"tokens", "sizes"}.issuperset(self.reads):
            raise InternalError(f"method {self.name}: before a block it can read its tokens and sizes only")
        if self.place == "around-attention" and (
            self.reads != ("tokens",) or self.combine or self.proportional
        ):
            raise InternalError(
                f"method {self.name}: around an attention it reads tokens, and takes their plain mean"
            )

    def limited(self, geometry: Geometry, given: Mapping[str, Any]) -> Geometry:
        """A model's geometry with what this method removes at most, what it drops, and how it reads a keep rate."""
        options = self.chosen(given)
        return replace(
            geometry,
            cap=self.cap,
            dropped=partial(self.dropped, **options),
            keep=partial(self.keep, **options),
            pairs=self.pairs,
            grid_cap=partial(self.grid_cap, **options),
        )

    def with_options(self, given: Mapping[str, Any]) -> Self:
        """The same method as its options change it."""
        return replace(self, **self.variant(**self.chosen(given)))

    def open_options(self, given: Mapping[str, Any]) -> list[str]:
        """The options that are still to be searched for."""
        return [name for name in self.searched(0) if given.get(name) == AUTO]

    def with_padding(self) -> Self:
        """The same method for texts of different length.

        Raises:
            UsageError: it has no rule for padding.
        """
        if not self.padded:
            raise UsageError(
                f"method {self.name}: it has no rule for padding, which texts of different length have; choose another "
                "method, such as tome"
            )
        reads: tuple[Signal, ...] = self.reads if "sizes" in self.reads else (*self.reads, "sizes")
        return replace(self, reads=reads, absent=True, kernels=None)

    def chosen(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Every option by name: the user's values, and defaults for the others and those still to be searched for.

        Raises:
            UsageError: an option that the method does not have.
        """
        known = vars(self.options())
        for name in given:
            if name not in known:
                listed = ", ".join(known) or "none"
                raise UsageError(
                    f"method {self.name}: unknown option {name}, expected one of: {listed}.{nearest(name, known)}"
                )
        still_open = self.open_options(given)
        return {**known, **{name: value for name, value in given.items() if name not in still_open}}
