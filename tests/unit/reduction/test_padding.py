"""Texts of different length in one batch: each is reduced as its definition reduces it alone."""

from typing import Any

import pytest
import torch

from exporter.reduction import Site, method
from exporter.reduction.merge import merge
from tests.support.definitions import Entering, definition

COUNT = 13
LENGTHS = torch.tensor([2, 3, 4, 5, 8, 9, 12, 13])
CASES = [
    pytest.param("tome", {}, id="tome"),
    pytest.param("tome", {"size_penalty": 0.1}, id="tome-size-penalty"),
    pytest.param("pitome", {"bipartite": "none"}, id="pitome"),
    pytest.param("pitome", {"bipartite": "all"}, id="pitome-bipartite"),
    pytest.param(
        "pitome",
        {"bipartite": "none", "energy": "gaussian", "deal": "halves", "margin": 0.5},
        id="pitome-of-bert",
    ),
    pytest.param("random", {"seed": 3}, id="random"),
    pytest.param("grid", {}, id="grid"),
    pytest.param("evit", {"fused": False}, id="evit"),
    pytest.param("evit", {"fused": True}, id="evit-fused"),
    pytest.param("diffrate", {}, id="diffrate"),
    pytest.param("ppt", {"threshold": 1e-9}, id="ppt-drops"),
    pytest.param("ppt", {"threshold": 0.01}, id="ppt-both"),
    pytest.param("ppt", {"threshold": 1.0}, id="ppt-merges"),
]
LEAST = {"random": 1, "grid": 1, "evit": 2, "diffrate": 1}
"""Methods that keep that many patches of the shortest text; all but DiffRate drop what leaves."""


class Case:
    """Random tokens, keys and sizes of texts, and what a method with padding makes of them."""

    def __init__(self, name: str, options: dict[str, Any], r: int) -> None:
        draw = torch.Generator().manual_seed(r)
        self.name, self.options, self.r = name, options, r
        self.method = method(name).with_options(options).with_padding()
        self.keys = torch.randn(len(LENGTHS), 2, COUNT, 4, generator=draw)
        self.values = torch.randn(len(LENGTHS), 2, COUNT, 4, generator=draw)
        self.tokens = torch.randn(len(LENGTHS), COUNT, 5, generator=draw)
        here = torch.arange(COUNT) < LENGTHS[:, None]
        self.sizes = (torch.randint(1, 4, (len(LENGTHS), COUNT), generator=draw) * here).float().unsqueeze(2)
        dropped = {"diffrate": r // 2}.get(name, r if name in LEAST else 0)
        self.at = Site(r=r, dropped=dropped, prefix=1, depth=0.5, tokens=COUNT)
        self.arguments = {"padded": True, **self.method.chosen(options)}
        row = torch.randn(len(LENGTHS), COUNT, generator=draw).masked_fill(~here, -torch.inf).softmax(dim=1)
        read = {
            "class_row": row,
            "keys": self.keys,
            "mean_keys": self.keys,
            "values": self.values,
            "tokens": self.tokens,
            "sizes": self.sizes,
        }
        self.row, self.signals = row, tuple(read[name] for name in self.method.reads)
        self.match = self.method.decide(*self.signals, at=self.at, **self.arguments)

    def reduced(self) -> tuple[torch.Tensor, torch.Tensor]:
        if self.method.combine is None:
            return merge(self.tokens, self.sizes, self.match, form="gather", absent=True)
        return self.method.combine(
            self.tokens, self.sizes, self.match, *self.signals, form="gather", **self.arguments
        )

    def alone(self, row: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The row's text without padding, by the definition, sorted."""
        length = int(LENGTHS[row])
        removed = self.r
        if self.name in LEAST:
            removed = min(self.r, max(length - 1 - LEAST[self.name], 0))
        elif self.name == "ppt":
            removed = min(self.r, (length - 1) // 2)
        leaving = definition(self.name)(
            Entering(
                tokens_NC=self.tokens[row, :length].double(),
                sizes_N=self.sizes[row, :length, 0].double(),
                keys_HND=self.keys[row, :, :length].double(),
                values_HND=self.values[row, :, :length].double(),
                row_N=self.row[row, :length].double(),
                removed=removed,
                dropped=min(self.at.dropped, removed),
                prefix=1,
                block=1,
                blocks=2,
                options=self.options,
            )
        )
        return leaving.tokens_KC, leaving.sizes_K


@pytest.mark.parametrize("r", [1, 4, 6])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_every_text_is_reduced_as_it_is_alone(name: str, options: dict[str, Any], r: int) -> None:
    case = Case(name, options, r)

    tokens, sizes = case.reduced()

    for row in range(len(LENGTHS)):
        expected, expected_sizes = case.alone(row)
        places = sizes[row, :, 0].nonzero()[:, 0]  # of what is no padding
        assert options.get("fused") or places.tolist() == list(range(len(expected)))
        order, expected_order = places[tokens[row, places, 0].argsort()], expected[:, 0].argsort()
        torch.testing.assert_close(tokens[row, order].double(), expected[expected_order], rtol=0, atol=1e-5)
        torch.testing.assert_close(
            sizes[row, order, 0].double(), expected_sizes[expected_order], rtol=0, atol=1e-5
        )


@pytest.mark.parametrize("r", [1, 4, 6])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_regret_accepts_the_own_match_and_no_other(name: str, options: dict[str, Any], r: int) -> None:
    case = Case(name, options, r)
    others = case.match._replace(
        kept_BK=torch.cat((case.match.kept_BK[:, :1], case.match.kept_BK[:, 1:].flip(1)), dim=1)
    )

    own = case.method.regret(*case.signals, match=case.match, at=case.at, **case.arguments)
    other = case.method.regret(*case.signals, match=others, at=case.at, **case.arguments)

    assert (own <= 1e-5).all()
    assert (other > 1e-3).any()
