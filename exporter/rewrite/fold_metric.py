"""Pass: the mean key becomes further columns of the product that gives the keys."""

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor, fx

from exporter.anatomy import Anatomy, TokenAxis
from exporter.graph.fp8 import GRANULE
from exporter.graph.graph_pass import GraphPass, PassOutcome
from exporter.graph.nodes import add_call, operand, shape_of, trace_again
from exporter.graph.operators import aten
from exporter.reduction import Method
from exporter.rewrite.channel_rows import ProjectedHeads, has_parameters, projected_heads, replace_parameters
from exporter.rewrite.context import PassContext
from exporter.rewrite.role import Role, role_of


@dataclass(frozen=True, kw_only=True)
class FoldMetric(GraphPass):
    """Compute the mean key beside the keys. The mean over heads is linear, so it is a product with mean weights.

    Given: keys (B, H, N, D) that are rearranged channels of `linear(x, W (O, I), b (O))`, and a method that reads
    their mean over heads.
    Result: `linear(x, W' (O', I), b' (O'))`, whose first O channels go where they went and whose next D are the mean,
    which the method reads as keys of one head; O' is the next multiple of 16 after O + D.

    Declines where keys are computed from the projection by more than rearranging: a normalisation, a rotation.

    Attributes:
        anatomy: of the graph before it merged.
        method: which of its signals is the mean key.
    """

    anatomy: Anatomy
    method: Method
    name: ClassVar[str] = "fold_metric"

    @classmethod
    def configured(cls, context: PassContext) -> Self | None:
        """None where the mean is taken over the keys themselves, or not at all."""
        method = context.options.method
        wanted = context.options.forms.metric == "columns" and "mean_keys" in method.reads
        if context.anatomy is None or not any(context.sites) or not wanted:
            return None
        return cls(anatomy=context.anatomy, method=method)

    def call(self, graph_module: fx.GraphModule) -> PassOutcome:
        """Fold the metric of every block that reduces its tokens."""
        position = self.method.reads.index("mean_keys")
        rewrites, declined = 0, list[str]()
        for match in graph_module.graph.nodes:
            role = role_of(match)
            if role is None or role.part != "match":
                continue
            heads = projected_heads(graph_module, operand(match, position))
            if heads is None or not has_parameters(heads.linear):
                declined.append(f"block {role.block}: keys are more than a rearranged projection")
                continue
            keys, mean = operand(match, position), self._mean(graph_module, heads)
            match.update_arg(position, mean)
            for reader in list(keys.users):
                if role_of(reader) == Role("similarity", role.block):
                    reader.replace_input_with(keys, mean)
            rewrites += 1
        return PassOutcome(name=self.name, rewrites=rewrites, declined=tuple(declined))

    def _mean(self, graph_module: fx.GraphModule, heads: ProjectedHeads) -> fx.Node:
        """Widen the projection; a node (B, 1, N, D) that holds the mean over heads."""
        linear, width = heads.linear, heads.rows_HD.shape[1]
        channels, readers = shape_of(linear)[-1], list(linear.users)
        layout = self.anatomy.layouts.get(linear)
        token_first = isinstance(layout, TokenAxis) and layout.axis == 0

        def widened(value: Tensor) -> Tensor:
            mean = value[heads.rows_HD].float().mean(0)
            padding = value.new_zeros((-(channels + width) % GRANULE, *value.shape[1:]))
            return torch.cat((value, mean.to(value.dtype), padding))

        replace_parameters(graph_module, linear, "and_metric", widened)
        trace_again(linear)
        graph = graph_module.graph
        with graph.inserting_before(linear.next):
            own = add_call(graph, aten.slice.Tensor, linear, -1, 0, channels)
            mean = add_call(graph, aten.slice.Tensor, linear, -1, channels, channels + width)
            if token_first:
                mean = add_call(graph, aten.transpose.int, mean, 0, 1)
            mean = add_call(graph, aten.unsqueeze.default, mean, 1)
        for reader in readers:
            reader.replace_input_with(linear, own)
        return mean
