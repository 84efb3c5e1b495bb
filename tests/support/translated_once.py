"""The exporter of torch translates equal programs once in a process; it takes half of an export.

Programs are equal that have the same nodes, names, shapes and weights, and are asked for in the same form. What an
export does after the translation it does every time.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from unittest.mock import patch

import onnx_ir as ir
import torch
from torch.export import ExportedProgram

from exporter.targets.onnx import build
from exporter.targets.target import EmitRequest

MOST_PARAMETERS = 2_000_000
MOST_KEPT = 40


@contextmanager
def translating_once() -> Iterator[None]:
    """Within it, `exporter.targets.onnx.build` keeps what it translated; large models and old ones are not kept."""
    kept: OrderedDict[str, ir.Model] = OrderedDict()
    original = build._translate

    def translate(
        exported: ExportedProgram, request: EmitRequest, names: Sequence[str], written: int
    ) -> ir.Model:
        tensors = {**exported.state_dict, **exported.constants}
        if sum(each.numel() for each in tensors.values() if isinstance(each, torch.Tensor)) > MOST_PARAMETERS:
            return original(exported, request, names, written)
        key = _key(exported, repr((request.signature, request.forms, request.precision, names, written)))
        if key in kept:
            kept.move_to_end(key)
            return kept[key].clone()
        kept[key] = original(exported, request, names, written)
        if len(kept) > MOST_KEPT:
            kept.popitem(last=False)
        return kept[key].clone()

    with patch.object(build, "_translate", translate):
        yield


def _key(exported: ExportedProgram, asked: str) -> str:
    values = [
        (node.name, str(node.meta.get("val"))) for node in exported.graph.nodes if node.op == "placeholder"
    ]
    digest = hashlib.sha256(f"{exported.graph}{exported.graph_signature}{values}{asked}".encode())
    for name, value in sorted({**exported.state_dict, **exported.constants}.items()):
        digest.update(name.encode())
        if isinstance(value, torch.Tensor):
            flat = value.detach().contiguous().reshape(-1)
            digest.update(
                f"{value.dtype}{tuple(value.shape)}".encode() + flat.view(torch.uint8).numpy().tobytes()
            )
        else:
            digest.update(repr(value).encode())
    return digest.hexdigest()
