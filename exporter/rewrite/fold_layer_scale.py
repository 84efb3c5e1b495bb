"""Pass: LayerScale goes into the projection before it."""

from dataclasses import dataclass
from typing import ClassVar

from torch import fx

from exporter.graph.graph_pass import GraphPass, PassOutcome
from exporter.graph.nodes import add_parameter, attribute, calls, shape_of
from exporter.graph.operators import aten
from exporter.rewrite.channel_rows import has_parameters


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
            _fold(graph_module, linear, factor)
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


def _fold(graph_module: fx.GraphModule, linear: fx.Node, factor: fx.Node) -> None:
    scale = attribute(graph_module, factor).flatten()
    weight, bias = linear.args[1], linear.args[2] if len(linear.args) > 2 else None
    assert isinstance(weight, fx.Node)
    folded = [
        add_parameter(
            graph_module, linear, f"{weight.name}_scaled", attribute(graph_module, weight) * scale[:, None]
        )
    ]
    if isinstance(bias, fx.Node):
        folded.append(
            add_parameter(graph_module, linear, f"{bias.name}_scaled", attribute(graph_module, bias) * scale)
        )
    linear.args = (linear.args[0], *folded)
