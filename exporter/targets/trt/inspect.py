"""What became of the graph: an engine's layers, and which attentions run as one fused kernel.

TensorRT's engine inspector lists layers by name, type and kernel, and which ONNX nodes each was made of. Fused
attention has a kernel with `mha` in its name: `_gemm_mha_v2_...` where it is generated (a `kgen` layer), `fmha_v2_...`
where it is a precompiled one.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_FUSED = re.compile(r"(?:^|[^a-z])[a-z]*mha(?:[^a-z]|$)", re.IGNORECASE)
"""A word that ends in `mha`: _gemm_mha_v2, fmha_v2, kgen_mha, mha; not `alpha`."""

_ONNX_NODE = re.compile(r"\[ONNX Layer: ([^\]]+)\]")


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer of an engine.

    Attributes:
        name: TensorRT's.
        kind: its type: `gemm`, `kgen`, `Reformat` and so on.
        tactic: name of the kernel, as far as TensorRT says.
        nodes: ONNX nodes that it was made of.
    """

    name: str
    kind: str
    tactic: str
    nodes: tuple[str, ...]

    @property
    def is_fused_attention(self) -> bool:
        """Whether it computes softmax(q k^T) v in one kernel."""
        return any(_FUSED.search(text) for text in (self.name, self.tactic, self.kind))

    def entries(self) -> dict[str, Any]:
        """For the record beside the engine."""
        return {"name": self.name, "kind": self.kind, "tactic": self.tactic, "nodes": list(self.nodes)}


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What an engine consists of.

    Attributes:
        layers: in order.
        attention: how many attentions the graph has.
    """

    layers: tuple[Layer, ...]
    attention: int

    @property
    def fused(self) -> int:
        """How many of them run fused: the softmax nodes of fused layers, and fused layers that name no softmax."""
        fused = [layer for layer in self.layers if layer.is_fused_attention]
        named = {node for layer in fused for node in layer.nodes if _is_attention(node)}
        unnamed = sum(not any(map(_is_attention, layer.nodes)) for layer in fused)
        return min(len(named) + unnamed, self.attention)

    @property
    def summary(self) -> str:
        """`attention fused 12/12`."""
        return f"attention fused {self.fused}/{self.attention}"

    def kinds(self) -> dict[str, int]:
        """How many layers of which type, the most frequent first."""
        return dict(Counter(layer.kind for layer in self.layers).most_common())


def inspect_engine(trt: Any, engine: Any, attention: int) -> Inspection:
    """Ask TensorRT.

    Args:
        trt: the package.
        engine: an `ICudaEngine` that was built with detailed profiling verbosity.
        attention: how many attentions the graph has.
    """
    inspector = engine.create_engine_inspector()
    text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    return Inspection(layers=tuple(read_layers(text)), attention=attention)


def read_layers(text: str) -> Iterable[Layer]:
    """The layers of the inspector's JSON; with a lower verbosity they are names only."""
    for entry in json.loads(text or "{}").get("Layers", []):
        described = entry if isinstance(entry, Mapping) else {"Name": entry}
        nodes = _ONNX_NODE.findall(str(described.get("Metadata", "")))
        yield Layer(
            name=str(described.get("Name", "")),
            kind=str(described.get("LayerType", "")),
            tactic=str(described.get("TacticName", "")),
            nodes=tuple(nodes),
        )


def count_attention(operators: Sequence[str]) -> int:
    """How many attentions a graph has, by its operators: each has one softmax, or is one operator."""
    return sum(operator in ("Softmax", "Attention") for operator in operators)


def _is_attention(node: str) -> bool:
    """Whether an ONNX node is what `count_attention` counts; exporters name nodes after their operators."""
    return node.rpartition("/")[2].lower().startswith(("softmax", "attention"))
