"""What a node does in a block's reduction: written by passes, read by the validation of a program."""

from typing import Literal, NamedTuple

from torch import fx


class Role(NamedTuple):
    """In a node's `meta["role"]`.

    Attributes:
        part: `point`: its value is what merges, or would; `match`: its value is a `Match`, its arguments are what the
            method reads; `merge`: tokens and sizes after the reduction; `similarity`: of the pairs of a match.
        block: index.
    """

    part: Literal["point", "match", "merge", "similarity"]
    block: int


def role_of(node: fx.Node) -> Role | None:
    """The role of a node, None for one without."""
    role = node.meta.get("role")
    return role if isinstance(role, Role) else None
