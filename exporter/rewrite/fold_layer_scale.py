"""Pass: LayerScale goes into the projection before it."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from torch import Tensor, fx

from exporter.graph.graph_pass import GraphPass, PassOutcome
from exporter.graph.nodes import attribute, calls, shape_of
from exporter.graph.operators import aten
from exporter.rewrite.channel_rows import has_parameters, replace_parameters


@dataclass(frozen=True)
class FoldLayerScale(GraphPass):
    """Multiply a projection's weight and bias by the per-channel factor that follows it.

    Given: `linear(x, W (O, I), b (O)) * g`, g a parameter of shape (O) or (1, ..., O).
    Result: `linear(x, g[:, None] * W, g * b)`.

    Declines where the projection's unscaled result is read elsewhere.
    """

    name: ClassVar[str] = "fold_layer_scale"
    optional: ClassVar[bool] = True

    def call(self, graph_module: fx.GraphModule) -> PassOutcome:
        """Fold every LayerScale of the graph."""
        rewrites, declined = 0, []
        for scaled in calls(graph_module.graph, aten.mul.Tensor):
            linear, factor = _projection_and_factor(scaled)
            if linear is None or factor is None:
                continue
            if not has_parameters(linear):
                declined.append(f"{scaled.name}: the weight of {linear.name} is computed in the graph")
                continue
            if len(linear.users) > 1:
                declined.append(f"{scaled.name}: {linear.name} is read without the scale as well")
                continue
            scaled_rows = partial(_scaled, rows=attribute(graph_module, factor).flatten())
            replace_parameters(graph_module, linear, "scaled", scaled_rows)
            scaled.replace_all_uses_with(linear)
            rewrites += 1
        return PassOutcome(name=self.name, rewrites=rewrites, declined=tuple(declined))


def _projection_and_factor(scaled: fx.Node) -> tuple[fx.Node | None, fx.Node | None]:
    for linear, factor in (scaled.args[:2], scaled.args[1::-1]):
        if not (isinstance(linear, fx.Node) and isinstance(factor, fx.Node)):
            continue
        if linear.target is aten.linear.default and factor.op == "get_attr":
            channels = shape_of(linear)[-1]
            if shape_of(factor)[-1:] == (channels,) and factor.meta["val"].numel() == channels:
                return linear, factor
    return None, None


def _scaled(value: Tensor, *, rows: Tensor) -> Tensor:
    return value * rows.reshape(-1, *[1] * (value.dim() - 1))
