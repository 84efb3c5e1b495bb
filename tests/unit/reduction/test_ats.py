"""ATS against its definition: what is drawn, which slots stay empty, and what a wrong drawing costs."""

from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from exporter.reduction import Site, method
from exporter.reduction.match import Match, is_partition, is_readable, read_match, record_match
from tests.support.definitions.ats import Drawing, draw

ATS = method("ats")
ORDERS = ("ascending", "token")


@dataclass(frozen=True, kw_only=True)
class AtsCase:
    """Attention to tokens (N,), of which some are absent, values of length 1, prefix tokens and tokens that leave."""

    row_N: Tensor
    absent: tuple[int, ...]
    prefix: int
    r: int
    order: str

    @property
    def at(self) -> Site:
        """As many patches at first as there are now."""
        count = len(self.row_N)
        return Site(r=self.r, dropped=self.r, prefix=self.prefix, depth=0.5, tokens=count)

    @property
    def signals(self) -> tuple[Tensor, ...]:
        """What ATS reads, for one image."""
        count = len(self.row_N)
        generator = torch.Generator().manual_seed(count)
        values = torch.ones(1, 1, count, 1)
        sizes = torch.ones(1, count, 1)
        sizes[:, list(self.absent)] = 0
        row = self.row_N.clone()
        row[list(self.absent)] = 0
        return row[None], values, sizes, torch.randn(1, 2, count, 3, generator=generator)

    def decide(self) -> Match:
        """The method's own decision."""
        return ATS.decide(*self.signals, at=self.at, order=self.order)

    def expected(self) -> Drawing:
        """By the definition, of the tokens that are not absent; patches as positions of tokens."""
        present = [each for each in range(self.prefix, len(self.row_N)) if each not in self.absent]
        total = sum(float(self.row_N[each]) for each in present)
        slots = len(self.row_N) - self.prefix - self.r
        score = [float(self.row_N[each]) / total for each in present]
        found = draw(score, order=self.order, first=len(self.row_N) - self.prefix, slots=slots)
        return Drawing(
            patches=[present[each] for each in found.patches], needed=found.needed, margin=found.margin
        )


@st.composite
def cases(draw: st.DrawFn) -> AtsCase:
    """Few different attentions, so that equal scores are everywhere, and absent tokens among them."""
    prefix, patches = draw(st.integers(1, 3)), draw(st.integers(3, 17))
    count = prefix + patches
    rows = draw(st.lists(st.sampled_from([1.0, 2.0, 3.0, 11.0]), min_size=count, max_size=count))
    absent = draw(st.sets(st.integers(prefix, count - 1), max_size=patches - 2))
    r = draw(st.integers(1, patches - 1))
    order = draw(st.sampled_from(ORDERS))
    return AtsCase(row_N=torch.tensor(rows), absent=tuple(absent), prefix=prefix, r=r, order=order)


def present(match: Match) -> list[int]:
    assert match.absent is not None
    slots = zip(match.kept_BK[0].tolist(), match.absent[0].tolist(), strict=True)
    return [token for token, absent in slots if not absent]


@given(case=cases())
def test_drawn_tokens_stay_and_the_other_slots_are_absent(case: AtsCase) -> None:
    expected = case.expected()
    assume(expected.margin > 1e-5)

    match = case.decide()

    assert present(match) == [*range(case.prefix), *expected.patches]
    assert is_partition(match)
    assert match.dropped == case.r
    needed = ATS.needed
    assert needed is not None
    assert needed(*case.signals, at=case.at, order=case.order).tolist() == [case.prefix + expected.needed]


@given(case=cases())
def test_own_match_has_no_regret_and_its_record_is_read_back(case: AtsCase) -> None:
    match = case.decide()
    record = record_match(match)

    found = read_match(record, case.r, case.r, absent=True)

    assert is_readable(record, case.r, absent=True)
    assert torch.equal(record_match(found), record)
    assert float(ATS.regret(*case.signals, match=match, at=case.at, order=case.order)) < 1e-6


@given(case=cases())
def test_no_token_names_an_absent_one(case: AtsCase) -> None:
    match = case.decide()

    assert match.absent is not None
    assert not match.absent.gather(1, match.target_BR).any()
    assert match.target_BR.min() >= case.prefix


def with_slot(match: Match, slot: int, *, token: int, absent: int) -> Match:
    """Another token in a slot, drawn or absent, in order; the token that stood there leaves instead."""
    assert match.absent is not None
    kept, sources = match.kept_BK[0].tolist(), match.source_BR[0].tolist()
    if token in sources:
        sources[sources.index(token)] = kept[slot]
    flags = match.absent[0].tolist()
    kept[slot], flags[slot] = token, absent
    pairs = sorted(zip(flags, kept, strict=True))
    return match._replace(
        kept_BK=torch.tensor([[token for _, token in pairs]]),
        source_BR=torch.tensor([sources]),
        absent=torch.tensor([[flag for flag, _ in pairs]]),
    )


UNEVEN = AtsCase(
    row_N=torch.tensor([9.0, 1, 1, 30, 1, 40, 1, 1, 25, 1]), absent=(), prefix=1, r=1, order="ascending"
)
"""Patches 3, 5 and 8 take nearly all samples."""


@pytest.mark.parametrize("order", ORDERS)
def test_wrong_drawing_is_regretted(order: str) -> None:
    case = replace(UNEVEN, order=order)
    own = case.decide()
    slot = own.kept_BK[0].tolist().index(5)
    assert own.absent is not None
    empty = int(own.absent[0].nonzero()[0])

    left_out = with_slot(own, slot, token=5, absent=1)
    never_drawn = with_slot(own, empty, token=int(own.kept_BK[0, empty]), absent=0)

    regrets = [
        float(ATS.regret(*case.signals, match=match, at=case.at, order=order))
        for match in (own, left_out, never_drawn)
    ]
    assert regrets[0] < 1e-6
    assert min(regrets[1:]) > 1e-3


def test_lowest_of_too_many_is_left_out_and_another_choice_is_regretted() -> None:
    row = torch.tensor([9.0, 10, 11, 12, 13, 14, 15])
    case = AtsCase(row_N=row, absent=(), prefix=1, r=4, order="ascending")
    own = case.decide()
    assert own.absent is not None

    other = with_slot(own, 1, token=3, absent=0)

    assert (present(own), int(own.absent.sum())) == ([0, 5, 6], 0)
    assert float(ATS.regret(*case.signals, match=other, at=case.at, order="ascending")) > 0.1


NEAR = [9.0, 10, 11, 12, 14 - 2e-5, 14, 15]
"""Nearly tied are 4 and 5: in the other order the other one is drawn."""


def test_near_tie_of_scores_is_forgiven() -> None:
    case = AtsCase(row_N=torch.tensor(NEAR), absent=(), prefix=1, r=4, order="ascending")
    swapped = replace(case, row_N=torch.tensor([*NEAR[:4], NEAR[5], NEAR[4], NEAR[6]]))
    own, other = case.decide(), swapped.decide()

    regret = float(ATS.regret(*case.signals, match=other, at=case.at, order="ascending"))

    assert present(own) != present(other)
    assert regret < 1e-5


def test_fewer_of_near_tied_patches_than_are_drawn_is_regretted() -> None:
    case = AtsCase(row_N=torch.tensor([9.0] + [10.0] * 12), absent=(), prefix=1, r=2, order="ascending")
    own = case.decide()

    fewer = with_slot(own, 1, token=int(own.kept_BK[0, 1]), absent=1)

    assert float(ATS.regret(*case.signals, match=fewer, at=case.at, order="ascending")) > 1e-3


def test_absent_tokens_in_front_are_not_drawn_by_position() -> None:
    row = torch.tensor([1.0, 5, 5, 0.9, 0.1])
    case = AtsCase(row_N=row, absent=(1, 2), prefix=1, r=1, order="token")

    assert present(case.decide()) == [0, 3]
