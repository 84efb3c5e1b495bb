"""Follow tokens through a reduced program: what stands for what, and how far every block is from the dense model.

In: a `RewrittenProgram` and images. Out: the groups that a picture of the merges is drawn from, and errors per block.
A token that is dropped belongs to the token that its match names.

Shapes: L blocks, B images, T tokens that enter the first block, K tokens after a merge, C channels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, fx

from exporter.anatomy import Anatomy, TokenAxis
from exporter.reduction.unmerge import follow
from exporter.rewrite import RewrittenProgram
from exporter.rewrite.role import Role, role_of
from exporter.validation.block_error import initial_groups, relative_error
from exporter.validation.follow import Recorder


def groups_of(program: RewrittenProgram, records: Sequence[Tensor], tokens: int) -> Tensor:
    """After every block, the number of the token that each original token has become part of.

    Args:
        program: whose merges they are.
        records: the match of every block that merges (`record_match`).
        tokens: that enter the first block.

    Returns:
        (L, B, T) int32.
    """
    matches = program.matches(records)
    groups_BT = initial_groups(len(records[0]), tokens)
    after_every_block = []
    for block in range(len(program.sites)):
        if block in matches:
            groups_BT = follow(groups_BT, matches[block])
        after_every_block.append(groups_BT)
    return torch.stack(after_every_block).to(torch.int32)


def block_errors(
    program: RewrittenProgram, dense: fx.GraphModule, anatomy: Anatomy, images: Tensor, normalized: Tensor
) -> dict[int, float]:
    """Relative error of the tokens after every reduction, against the same place in the dense model.

    Every original token is compared with the token that it has become part of.

    Args:
        program: rewritten.
        dense: the captured graph that it was rewritten from.
        anatomy: of `dense`.
        images: one batch, as `program` takes it.
        normalized: the same batch, as `dense` takes it.

    Returns:
        By block that merges.
    """
    with torch.no_grad():
        reduced = Recorder(program.merging, role_of)
        reduced.run(images)
        points = {block.merge_point: index for index, block in enumerate(anatomy.blocks)}
        whole = Recorder(dense, points.get)
        whole.run(normalized)
    errors: dict[int, float] = {}
    groups_BT: Tensor | None = None
    for block in program.merging_blocks:
        layout = anatomy.layouts[anatomy.blocks[block].merge_point]
        assert isinstance(layout, TokenAxis)
        dense_BTC = whole.kept[block].transpose(0, 1) if layout.axis == 0 else whole.kept[block]
        if groups_BT is None:
            groups_BT = initial_groups(*dense_BTC.shape[:2])
        groups_BT = follow(groups_BT, reduced.kept[Role("match", block)])
        reduced_BKC, _ = reduced.kept[Role("merge", block)]
        errors[block] = relative_error(dense_BTC, reduced_BKC, groups_BT)
    return errors
