"""One image as its definition takes it, drawn by hypothesis, and as a method of the product reads it."""

from collections.abc import Callable
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from exporter.reduction import Method, Site
from exporter.reduction.match import Match
from exporter.reduction.merge import merge
from tests.support.definitions import Entering
from tests.unit.reduction.match_cases import exact_unit_vectors

HEADS = 2


@st.composite
def entering(draw: st.DrawFn, *, tied: bool, cap: Callable[[int, int], int]) -> Entering:
    """Draw 3 to 14 patches behind 1 to 3 prefix tokens; as many leave as a method's cap allows.

    Tied ones have few different tokens, keys and attentions, all exact in fp32. Values are of length 1.
    """
    prefix, patches = draw(st.integers(1, 3)), draw(st.integers(3, 14))
    count = prefix + patches
    removed = draw(st.integers(1, cap(count, prefix)))
    if tied:
        rows = torch.tensor(
            draw(st.lists(st.sampled_from(exact_unit_vectors()), min_size=count, max_size=count))
        )
        attention = torch.tensor(
            draw(st.lists(st.sampled_from([1.0, 2.0, 5.0]), min_size=count, max_size=count))
        )
        sizes = torch.ones(count)
    else:
        generator = torch.Generator().manual_seed(draw(st.integers(0, 1_000_000)))
        rows = torch.randn(count, 4, generator=generator)
        attention = torch.rand(count, generator=generator)
        sizes = torch.randint(1, 6, (count,), generator=generator)
    keys_HND = rows.expand(HEADS, -1, -1)
    return Entering(
        tokens_NC=rows.flip(1).double(),
        sizes_N=sizes.double(),
        keys_HND=keys_HND.double(),
        values_HND=torch.nn.functional.normalize(keys_HND.double(), dim=2),
        row_N=(attention / attention.sum()).double(),
        removed=removed,
        dropped=draw(st.integers(0, removed)),
        prefix=prefix,
        block=1,
        blocks=4,
    )


def site(image: Entering) -> Site:
    """Where it is reduced."""
    return Site(r=image.removed, dropped=image.dropped, prefix=image.prefix, depth=image.block / image.blocks)


def signals(image: Entering, method: Method) -> list[Tensor]:
    """What a method reads of it, as a batch of one in fp32."""
    read = {
        "tokens": image.tokens_NC,
        "sizes": image.sizes_N[:, None],
        "keys": image.keys_HND,
        "mean_keys": image.keys_HND,
        "values": image.values_HND,
        "class_row": image.row_N,
    }
    return [read[name].float()[None] for name in method.reads]


def reduced(image: Entering, method: Method, match: Match, **options: Any) -> tuple[Tensor, Tensor]:
    """The tokens that a method makes of it by a match, (K, C), and their sizes (K,)."""
    tokens_BNC, sizes_BN1 = image.tokens_NC.float()[None], image.sizes_N.float()[None, :, None]
    if method.combine is None:
        tokens, sizes = merge(tokens_BNC, sizes_BN1, match, form="gather")
    else:
        tokens, sizes = method.combine(
            tokens_BNC, sizes_BN1, match, *signals(image, method), form="gather", **options
        )
    return tokens[0], sizes[0, :, 0]
