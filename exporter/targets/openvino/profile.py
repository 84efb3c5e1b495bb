"""Where a model spends its time, block by block, by OpenVINO's own counters.

Nodes carry the block that they belong to in their names. What OpenVINO puts between them, such as a change of layout,
is named after the node that needs it, or has a name of its own and counts to the block before it.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from exporter.signature import Array

_BLOCK = re.compile(r"(?:^|_)(stem|block_\d+|head)/")


def profile_blocks(compiled: Any, inputs: Mapping[str, Array], calls: int) -> dict[str, float]:
    """Milliseconds of one call by block, the median over calls; the first call does not count.

    Args:
        compiled: with its counters switched on.
        inputs: one batch by name.
        calls: to take the median over.
    """
    request = compiled.create_infer_request()
    runs = []
    for _ in range(calls + 1):
        request.infer(dict(inputs))
        runs.append(
            by_block(
                (entry.node_name, entry.real_time.total_seconds() * 1000) for entry in request.profiling_info
            )
        )
    labels = dict.fromkeys(label for run in runs for label in run)
    return {label: float(np.median([run.get(label, 0.0) for run in runs[1:]])) for label in labels}


def by_block(nodes: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Times added up by block.

    Args:
        nodes: name and milliseconds, in the order in which they run.
    """
    spent: dict[str, float] = {}
    label = ""
    for name, took_ms in nodes:
        found = _BLOCK.search(name)
        label = found[1] if found else label
        if label:
            spent[label] = spent.get(label, 0.0) + took_ms
    return spent
