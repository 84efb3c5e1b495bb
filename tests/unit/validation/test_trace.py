"""What merged into what, block by block, and how far tokens are from the dense model: against the eager models."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from exporter.validation import block_errors, groups_of
from tests.support.compiled import REQUESTS, captured_family, reference
from tests.support.families import family
from tests.support.matching import Method

FAMILIES = ["timm_vit", "torchvision_vit", "hf_vit", "timm_dinov2_registers"]


def composed(blocks: Sequence[Sequence[Sequence[int]]], tokens: int) -> list[list[int]]:
    """After every block, the number of the token that each original one is in, followed by hand."""
    place = list(range(tokens))
    found = []
    for groups in blocks:
        into = {member: number for number, group in enumerate(groups) for member in group}
        place = [into[token] for token in place]
        found.append(list(place))
    return found


@pytest.mark.parametrize("method", ["tome", "pitome"])
@pytest.mark.parametrize("name", FAMILIES)
def test_groups_are_those_of_the_eager_model(name: str, method: Method) -> None:
    captured = captured_family(name)
    schedule = captured.schedule(REQUESTS["constant"])
    images = family(name).images(2)
    program = captured.compile(REQUESTS["constant"], method)
    run = reference(family(name), schedule.merged, method)

    groups_LBT = groups_of(program, program(images)[program.outputs :], schedule.tokens[0])

    executed = [block for block, r in enumerate(program.merged) if r]
    for image in range(2):
        matchings = [run.matchings[block][image].groups for block in range(max(executed) + 1)]
        assert groups_LBT[: max(executed) + 1, image].tolist() == composed(matchings, schedule.tokens[0])
    assert groups_LBT.dtype == torch.int32
    assert len(groups_LBT) == len(schedule.merged)


def test_blocks_that_merge_nothing_leave_the_groups_as_they_were() -> None:
    captured = captured_family("timm_vit")
    program = captured.compile(REQUESTS["with zeros"])

    groups_LBT = groups_of(program, program(family("timm_vit").images(2))[program.outputs :], 37)

    idle = [block for block, r in enumerate(program.merged) if not r]
    assert idle
    before = {block: groups_LBT[block - 1] if block else torch.arange(37).expand(2, 37) for block in idle}
    assert all(torch.equal(groups_LBT[block], before[block].to(torch.int32)) for block in idle)


def after_attention(images: Tensor) -> Tensor:
    """The tokens between attention and MLP of a timm model's first block, (B, T, C), from its own modules."""
    model = family("timm_vit").model()
    inputs: list[Tensor] = []
    hook = model.blocks[0].norm2.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))  # type: ignore[union-attr,index]
    with torch.no_grad():
        model(images)
    hook.remove()
    return inputs[0]


def test_error_of_the_first_block_is_the_spread_within_its_groups() -> None:
    captured = captured_family("timm_vit")
    images = family("timm_vit").images(2)
    program = captured.compile(REQUESTS["constant"])
    run = reference(family("timm_vit"), captured.schedule(REQUESTS["constant"]).merged, "tome")
    tokens_BTC = after_attention(images)
    shares = []
    for image, tokens_TC in enumerate(tokens_BTC):
        merged_TC = tokens_TC.clone()
        for group in run.matchings[0][image].groups:
            merged_TC[group] = tokens_TC[group].mean(dim=0)
        shares.append(float((tokens_TC - merged_TC).norm() / tokens_TC.norm()))

    errors = block_errors(program, captured.program.graph_module, captured.anatomy, images, images)

    assert errors[0] == pytest.approx(sum(shares) / 2, rel=1e-5)
    assert list(errors) == list(program.merging_blocks)
    assert all(error > 0 for error in errors.values())


def test_a_token_axis_in_front_is_compared_as_well() -> None:
    captured = captured_family("torchvision_vit")
    images = family("torchvision_vit").images(2)
    program = captured.compile(REQUESTS["constant"])

    errors = block_errors(program, captured.program.graph_module, captured.anatomy, images, images)

    assert list(errors) == list(program.merging_blocks)
    assert all(0 < error < 1 for error in errors.values())
