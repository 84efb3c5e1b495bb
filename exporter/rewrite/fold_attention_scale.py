"""Pass: the attention scale goes into the query projection."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, fx

from exporter.graph.graph_pass import GraphPass, PassOutcome
from exporter.graph.nodes import calls, scale_of
from exporter.graph.operators import sdpa
from exporter.rewrite.channel_rows import projected_heads, read_elsewhere, replace_parameters


@dataclass(frozen=True)
class FoldAttentionScale(GraphPass):
    """Multiply the query channels of a projection by the attention's scale.

    Given: `scaled_dot_product_attention(q, k, v, scale=s)`, q rearranged from `linear(x, W, b)`.
    Result: the rows of W and b that become q times s, and `scale=1`.

    Declines where q is normalised, rotated or otherwise computed, or where something else reads it.
    """

    name: ClassVar[str] = "fold_attention_scale"
    optional: ClassVar[bool] = True

    def call(self, graph_module: fx.GraphModule) -> PassOutcome:
        """Fold the scale of every attention that allows it."""
        rewrites, declined = 0, []
        for attention in calls(graph_module.graph, sdpa):
            scale, query = scale_of(attention), attention.args[0]
            assert isinstance(query, fx.Node)
            if scale == 1.0:
                continue
            heads = projected_heads(graph_module, query)
            if heads is None:
                declined.append(f"{attention.name}: its query is not a bare projection")
            elif read_elsewhere(graph_module, heads, query):
                declined.append(f"{attention.name}: its query is read elsewhere as well")
            else:
                scaled = partial(_rows_scaled, rows=heads.rows_HD.flatten(), scale=scale)
                replace_parameters(graph_module, heads.linear, "scaled", scaled)
                attention.kwargs = {**attention.kwargs, "scale": 1.0}
                rewrites += 1
        return PassOutcome(name=self.name, rewrites=rewrites, declined=tuple(declined))


def _rows_scaled(value: Tensor, *, rows: Tensor, scale: float) -> Tensor:
    factor = torch.ones(value.shape[0], dtype=value.dtype).index_fill_(0, rows, scale)
    return value * factor.reshape(-1, *[1] * (value.dim() - 1))
