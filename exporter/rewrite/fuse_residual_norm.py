"""Pass: a residual sum, the merge after it and the LayerNorm after that become one kernel."""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import fx

from exporter.graph.fp8 import FP8, quantize_fp8
from exporter.graph.graph_pass import GraphPass, PassOutcome
from exporter.graph.nodes import integer, operand
from exporter.graph.operators import Trait, aten, has
from exporter.reduction.sizes import initial_sizes
from exporter.rewrite.context import PassContext
from exporter.rewrite.role import role_of
from exporter.rewrite.traced_values import traced_values


@dataclass(frozen=True)
class FuseResidualNorm(GraphPass):
    """Give each residual sum, with what is done to it at once, to one kernel of `kernels.residual`.

    Given: `s = x + y` (B, N, C), `h = layer_norm(s, weight, bias)`; or, where a block merges, `s = merge(x + y, ...)`.
    Result: `s, h = add_norm(x, y, weight, bias)`; or `s, sizes, h = merge_add_norm(x, y, ...)`. Where h, or the result
    of a kernel for attention, only becomes e4m3, the kernel gives that.

    Declines sums that broadcast, and norms without weight or bias.
    """

    name: ClassVar[str] = "fuse_residual_norm"

    @classmethod
    def configured(cls, context: PassContext) -> Self | None:
        """None where merging is done by operators."""
        return cls() if context.options.forms.merge == "kernels" else None

    def call(self, graph_module: fx.GraphModule) -> PassOutcome:
        """Fuse the merges first, then the other sums."""
        fusion = _Fusion(values=traced_values(graph_module))
        nodes = list(graph_module.graph.nodes)
        merges = [node for node in nodes if (role := role_of(node)) is not None and role.part == "merge"]
        rewrites = sum(fusion.fuse_merge(merge) for merge in merges)
        rewrites += sum(map(fusion.fuse_sum, nodes))
        return PassOutcome(name=self.name, rewrites=rewrites + sum(map(_quantize_attention, nodes)))


@dataclass(frozen=True, kw_only=True)
class _Fusion:
    """The graph while it is being fused.

    Attributes:
        values: shapes and types.
    """

    values: dict[fx.Node, Any]

    def fuse_merge(self, merge: fx.Node) -> bool:
        """Fuse a merge with the sum before and the norm after it; return whether there are such."""
        from exporter.kernels.residual import merge_add_norm_by_kernel, merge_by_kernel

        if merge.target is not merge_by_kernel:
            return False
        sizes = operand(merge, 1)
        if sizes.target is initial_sizes and len(sizes.users) == 1:
            merge.update_arg(1, None)
            merge.graph.erase_node(sizes)
        total = operand(merge, 0)
        parts = {integer(user, 1): user for user in merge.users if user.target is operator.getitem}
        norm = self._norm_of(parts[0])
        if norm is None or not self._is_sum(total) or len(total.users) > 1:
            return False
        arguments = [*total.args, *merge.args[1:3], *self._parameters(norm)]
        results = _call(merge, merge_add_norm_by_kernel, arguments, 3)
        operand(results[0], 0).meta["role"] = role_of(merge)
        for index, old in (*parts.items(), (2, _quantized(norm) or norm)):
            self._take_place(old, results[index])
        return True

    def fuse_sum(self, total: fx.Node) -> bool:
        """Fuse a sum with the norm after it; return whether it is one that is normalised."""
        norm = self._norm_of(total) if self._is_sum(total) else None
        if norm is None:
            return False
        arguments = [*total.args, *self._parameters(norm)]
        for old, new in zip(
            (total, _quantized(norm) or norm),
            _call(total, torch.ops.exporter.add_norm.default, arguments, 2),
            strict=True,
        ):
            self._take_place(old, new)
        return True

    def _is_sum(self, node: fx.Node) -> bool:
        """Whether a node adds two values of its own shape."""
        if node.target is not aten.add.Tensor or node.kwargs or len(node.all_input_nodes) < 2:
            return False
        return len({self.values[each].shape for each in (node, *node.all_input_nodes)}) == 1

    def _norm_of(self, value: fx.Node) -> fx.Node | None:
        """The first LayerNorm over the last axis of a value, with weight and bias."""
        width = self.values[value].shape[-1:]
        for user in value.users:
            parameters = user.args[2:4] if user.target is aten.layer_norm.default else ()
            present = [each for each in parameters if isinstance(each, fx.Node) and each.op == "get_attr"]
            if len(present) == 2 and self.values[present[0]].shape == width:
                return user
        return None

    def _parameters(self, norm: fx.Node) -> tuple[Any, ...]:
        """Weight, bias, epsilon, the factor on the result and its type."""
        eps, quantized = norm.args[4] if len(norm.args) > 4 else 1e-5, _quantized(norm)
        factor, result = (1.0, norm) if quantized is None else (1 / _unit(quantized), quantized)
        return (*norm.args[2:4], eps, factor, self.values[result].dtype)

    def _take_place(self, old: fx.Node, new: fx.Node) -> None:
        """Give a node's readers and annotations to another one."""
        new.meta = dict(old.meta)
        self.values[new] = self.values[old]
        old.replace_all_uses_with(new)
        old.graph.erase_node(old)


def _quantized(value: fx.Node) -> fx.Node | None:
    """What makes e4m3 of a value, where nothing else is done with it."""
    readers = list(value.users)
    return readers[0] if len(readers) == 1 and readers[0].target is quantize_fp8 else None


def _unit(quantized: fx.Node) -> float:
    scale = quantized.args[1]
    assert isinstance(scale, float)
    return scale


def _quantize_attention(attention: fx.Node) -> bool:
    """Let the kernel of attention give e4m3, where its result is only rearranged and made that."""
    from exporter.kernels.attention import attend_with_kernel

    if attention.target is not attend_with_kernel:
        return False
    value = attention
    while len(value.users) == 1 and has(next(iter(value.users)), Trait.RESHAPE | Trait.MOVEMENT):
        value = next(iter(value.users))
    quantized = _quantized(value)
    if quantized is None:
        return False
    attention.kwargs = {**attention.kwargs, "factor": 1 / _unit(quantized), "dtype": FP8}
    quantized.replace_all_uses_with(value)
    attention.graph.erase_node(quantized)
    return True


def _call(place: fx.Node, function: Callable[..., Any], arguments: list[Any], count: int) -> list[fx.Node]:
    """Insert a call with `count` results just before `place`; constants are read there a second time."""
    graph = place.graph
    with graph.inserting_before(place):
        for position, value in enumerate(arguments):
            if isinstance(value, fx.Node) and value.op == "get_attr":
                arguments[position] = graph.node_copy(value)
                arguments[position].meta.pop("custom", None)
        call = graph.call_function(function, tuple(arguments))
        return [graph.call_function(operator.getitem, (call, index)) for index in range(count)]
