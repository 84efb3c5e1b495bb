"""A method that drops tokens, through the whole compiler: the decision that it records, and other ones.

`test_methods.py` compares its numbers with the definition.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from exporter import reduction
from exporter.anatomy import examine
from exporter.errors import InternalError, UnsupportedGraphError
from exporter.forms import FUNCTIONS, Forms
from exporter.reduction import Method, Site
from exporter.reduction.match import Match
from exporter.reduction.merge import merge
from exporter.rewrite import RewriteOptions, RewrittenProgram, rewrite
from exporter.schedule import Place, ScheduleRequest, all_dropped
from exporter.validation import TOLERANCES, block_errors, groups_of, run_eager, verify
from exporter.validation.follow import follow_matches
from tests.parity.test_onnx_parity import emit
from tests.support.compiled import captured_family, compiled_groups, max_abs_error
from tests.support.families import WIDTH, family

REQUEST = ScheduleRequest(r_per_layer=(4, 0, 21, 5))
"""Block 2 drops 21 of 33 tokens, more than could merge; the last block has no reader for what it drops."""

EVIT = reduction.method("evit")
UNFUSED: dict[str, Any] = {"fused": False}


def dropping(name: str = "timm_vit", request: ScheduleRequest = REQUEST, **options: Any) -> RewrittenProgram:
    return captured_family(name).compile(
        request, "evit", method_options=UNFUSED, proportional=False, **options
    )


def test_one_hot_selection_drops_the_same_tokens(tmp_path: Path) -> None:
    vit, forms = family("timm_vit"), Forms().choose({"selection": "one-hot"})
    program = dropping(forms=forms)
    inputs = {"images": {"images": vit.images().numpy()}}

    result = verify(
        program,
        emit(program, vit, tmp_path, forms=forms),
        run_eager(dropping(), inputs),
        TOLERANCES["fp32"],
    )

    assert result.passed
    assert result.match_agreement == (1.0, 1.0)


def swapped(record: Tensor, r: int) -> Tensor:
    """The record of a match that keeps the best attended of the dropped tokens in place of the last that stays."""
    kept = record.shape[1] - 2 * r
    other = record.clone()
    other[:, kept - 1], other[:, kept] = record[:, kept], record[:, kept - 1]
    return other


def test_another_decision_is_followed_and_its_regret_measured() -> None:
    vit, program = family("timm_vit"), dropping()
    own_output, *records = program(vit.images())

    (own, *_), none = follow_matches(program, [vit.images()], records)
    (other, *_), regret = follow_matches(program, [vit.images()], [swapped(records[0], 4), *records[1:]])

    assert torch.equal(own, own_output)
    assert none < 1e-6
    assert regret > 1e-3
    assert not torch.allclose(other, own_output, atol=1e-4)


def test_dropped_tokens_belong_to_the_token_that_their_match_names() -> None:
    vit, captured = family("timm_vit"), captured_family("timm_vit")
    program = dropping()
    records = program(vit.images())[1:]

    groups_LBT = groups_of(program, records, 37)

    for image in range(2):
        groups = compiled_groups(records[0], 4)[image]
        members = [(groups_LBT[0, image] == place).nonzero().flatten().tolist() for place in range(33)]
        assert members == [sorted(group) for group in groups]
    errors = block_errors(
        program, captured.program.graph_module, captured.anatomy, vit.images(), vit.images()
    )
    assert list(errors) == [0, 2]
    assert all(0 < error < 2 for error in errors.values())


def leave_absent(
    tokens_BNC: Tensor,
    sizes_BN1: Tensor,
    match: Match,
    row_BN: Tensor,
    keys: Tensor,
    *,
    form: str,
    fused: bool,
) -> tuple[Tensor, Tensor]:
    """Drop the match's tokens and make the two least attended of the others absent."""
    tokens, sizes = merge(tokens_BNC, sizes_BN1, match, form=form, absent=True)
    row_BK = row_BN.gather(1, match.kept_BK).index_fill(1, torch.tensor([0]), torch.inf)
    row_BK = torch.where(sizes[..., 0] > 0, row_BK, torch.inf)
    least_B2 = row_BK.topk(2, dim=1, largest=False).indices
    places_K = torch.arange(row_BK.shape[1])
    gone_BK = (places_K == least_B2[:, :1]) | (places_K == least_B2[:, 1:])
    return tokens, torch.where(gone_BK.unsqueeze(2), 0.0, sizes)


@pytest.mark.parametrize("mask", list(FUNCTIONS["mask"]))
@pytest.mark.parametrize("name", ["timm_vit", "timm_mean_pool"])
def test_absent_tokens_are_as_good_as_dropped(name: str, mask: str) -> None:
    vit, captured = family(name), captured_family(name)
    fewer, more = (ScheduleRequest(r_per_layer=(r, 0, 0, 0)) for r in (3, 5))
    absent = replace(EVIT, combine=leave_absent, absent=True)
    forms = Forms().choose({"mask": mask})
    options = RewriteOptions(method=absent, method_options=UNFUSED, proportional=False, batch=2, forms=forms)

    with_slots = rewrite(captured.program, captured.schedule(fewer, "evit", **UNFUSED), options)

    expected = dropping(name, more)
    assert max_abs_error(with_slots(vit.images())[0], expected(vit.images())[0]) < 1e-5


def test_model_without_a_class_token_is_refused() -> None:
    captured = captured_family("hf_siglip")

    with pytest.raises(UnsupportedGraphError, match="method evit reads the class token's attention"):
        captured.compile(REQUEST, "evit")


def drop_last(tokens_BNC: Tensor, *, at: Site) -> Match:
    batch, count, _ = tokens_BNC.shape
    kept_BK, source_BR = torch.arange(count).expand(batch, -1).split([count - at.r, at.r], dim=1)
    return Match(kept_BK, source_BR, torch.zeros_like(source_BR), at.dropped)


LAST = Method(
    name="last",
    reference="a test",
    does="drops the last tokens",
    licence="none",
    decide=drop_last,
    regret=lambda tokens_BNC, **_: tokens_BNC.new_zeros(len(tokens_BNC)),
    reads=("tokens",),
    dropped=all_dropped,
)


@pytest.mark.parametrize("place", ["block-start", "block-end"])
def test_tokens_leave_where_the_method_says(place: Place) -> None:
    vit, captured = family("timm_vit"), captured_family("timm_vit")
    last = replace(LAST, place=place)
    schedule = captured.schedule(ScheduleRequest(r_per_layer=(0, 5, 0, 0)), "evit", **UNFUSED)
    model = vit.model()
    block: Any = model.get_submodule("blocks.1")
    if place == "block-start":
        block.register_forward_pre_hook(lambda _, given: (given[0][:, :-5],))
    else:
        block.register_forward_hook(lambda _, __, result: result[:, :-5])

    program = rewrite(captured.program, schedule, RewriteOptions(method=last, proportional=False, batch=2))

    assert max_abs_error(program(vit.images())[0], model(vit.images())) < 1e-5
    blocks = 3 if place == "block-start" else 2
    macs = examine(captured.program.graph_module, place).workload.macs
    assert macs([37] * 5) - macs(schedule.tokens) == blocks * (block_macs(37) - block_macs(32))


def test_what_is_executed_counts_what_the_decision_reads() -> None:
    captured, request = captured_family("timm_vit"), ScheduleRequest(r_per_layer=(0, 5, 0, 0))
    schedule = captured.schedule(request, "evit", **UNFUSED)
    options = RewriteOptions(method=LAST, proportional=False, batch=2)

    more = (
        dropping(request=request).executed_macs - rewrite(captured.program, schedule, options).executed_macs
    )

    assert (
        more == 37 * WIDTH
    )  # the class token's query with every key; partners of what is dropped are not computed


def block_macs(tokens: int) -> int:
    """4 N C^2 + 2 N^2 C + 8 N C^2."""
    return 12 * tokens * WIDTH**2 + 2 * tokens**2 * WIDTH


def test_method_before_a_block_cannot_read_its_attention() -> None:
    with pytest.raises(InternalError, match="it can read its tokens and sizes only"):
        replace(EVIT, place="block-start")


def test_site_says_what_is_dropped() -> None:
    program = dropping()

    assert program.sites == (
        Site(r=4, dropped=4, prefix=1, depth=0.0, tokens=37),
        None,
        Site(r=21, dropped=21, prefix=1, depth=0.5, tokens=37),
        None,
    )
    assert program.merged == (0, 0, 0, 0)
