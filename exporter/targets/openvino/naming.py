"""Names that depend on the model alone.

What OpenVINO makes of one ONNX node may be several, which it numbers on through the whole process: two conversions of
one program would differ. Here they get the block of the node that they are for, and their place in the model.
"""

import re
from typing import Any

_NUMBERED = re.compile(r"([A-Za-z]+)_\d+")


def name_by_place(model: Any) -> None:
    """Rename what OpenVINO named by number, in place."""
    places = list(enumerate(model.get_ordered_ops()))
    for place, node in reversed(places):  # readers first: they say which block it is
        found = _NUMBERED.fullmatch(node.get_friendly_name())
        if found and found[1] == node.get_type_name():
            block = _block_of_reader(node)
            node.set_friendly_name(f"{block}{node.get_type_name()}_{place}")


def _block_of_reader(node: Any) -> str:
    for output in node.outputs():
        for reader in output.get_target_inputs():
            block, slash, _ = reader.get_node().get_friendly_name().partition("/")
            if slash:
                return f"{block}/"
    return ""
