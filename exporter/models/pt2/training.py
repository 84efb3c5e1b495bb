"""Whether a saved program still trains: drops values at random, or normalises by the batch it is given.

`torch.export.export(model)` keeps the mode of the model, and modules start in
training mode; `eval()` on the saved program does not change what its nodes do.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload
from torch.export import ExportedProgram

_MODES = ("train", "training")
_CHANCES = ("p", "dropout_p")

_RANDOM = "draws random numbers"
_BY_BATCH = "normalises by the statistics of the batch"


@dataclass(frozen=True, kw_only=True)
class TrainingNode:
    """A node that does something else in training, and what it does there."""

    node: str
    operator: str
    does: str


def training_node(program: ExportedProgram) -> TrainingNode | None:
    """The first node that trains, or None. A dropout of nothing (p = 0) does not."""
    return next(_training_nodes(program), None)


def _training_nodes(program: ExportedProgram) -> Iterator[TrainingNode]:
    graphs = [each.graph for each in program.graph_module.modules() if isinstance(each, fx.GraphModule)]
    for node in (node for graph in graphs for node in graph.nodes if node.op == "call_function"):
        if isinstance(node.target, OpOverload):
            does = _does_in_training(node.target, _arguments(node, node.target))
            if does is not None:
                yield TrainingNode(node=node.name, operator=str(node.target), does=does)


def _does_in_training(operator: OpOverload, arguments: Mapping[str, Any]) -> str | None:
    is_random = torch.Tag.nondeterministic_seeded in operator.tags
    modes = [arguments[name] for name in _MODES if name in arguments]
    chances = [arguments[name] for name in _CHANCES if name in arguments]
    if is_random:
        return None if False in modes or chances == [0] else _RANDOM
    if "_with_update" in str(operator):
        return _BY_BATCH
    has_own_statistics = arguments.get("running_mean") is not None
    return _BY_BATCH if True in modes and has_own_statistics else None


def _arguments(node: fx.Node, operator: OpOverload) -> dict[str, Any]:
    """The node's arguments by their names in the operator's schema, with its defaults."""
    schema = operator._schema.arguments
    values = {each.name: each.default_value for each in schema if each.has_default_value()}
    values |= {each.name: value for each, value in zip(schema, node.args, strict=False)}
    return values | node.kwargs
