"""Pass: stable sorts become comparisons of all pairs, for engines whose sort guarantees no order among ties."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

from exporter.capture import without_stack_traces
from exporter.errors import InternalError
from exporter.graph import GraphPass, PassOutcome
from exporter.reduction.ranking import argsort_distinct, ranks_descending
from exporter.rewrite.capture_again import eager_module
from exporter.rewrite.context import PassContext

_STABLE_SORT = torch.ops.aten.sort.stable


@dataclass(frozen=True, kw_only=True)
class DecomposeStableSort(GraphPass):
    """Write every stable sort of the exported program as comparisons.

    It runs after the second capture, since only there the reduction's functions have become operators.

    Given: `sort(scores, stable=True, dim=1, descending=True)` of (B, N).
    Result: ranks counted from N x N comparisons, and a sort of these distinct integers, which is the same in every
    engine.

    Attributes:
        context: `exported` is replaced.
        form: computes what the sort does.
    """

    context: PassContext
    form: Callable[..., tuple[Tensor, Tensor]]
    name: ClassVar[str] = "decompose_stable_sort"

    @classmethod
    def configured(cls, context: PassContext) -> Self | None:
        """None where the form of ranking is that sort itself."""
        form = context.options.forms.function("ranking")
        return None if form is _STABLE_SORT else cls(context=context, form=form)

    def call(self, graph_module: fx.GraphModule) -> PassOutcome:
        """Replace the exported program."""
        exported = self.context.exported
        assert exported is not None
        found = sum(node.target is _STABLE_SORT for node in exported.graph.nodes)
        self.context.exported = decompose_stable_sort(exported, self.form)
        return PassOutcome(name=self.name, rewrites=found)

    def result(self, graph_module: fx.GraphModule) -> fx.GraphModule:
        """The exported program as a graph module over the same parameters."""
        return eager_module(self.context)


def decompose_stable_sort(
    exported: ExportedProgram, form: Callable[..., tuple[Tensor, Tensor]]
) -> ExportedProgram:
    """The same program with its stable sorts in another form."""
    with torch.no_grad(), without_stack_traces():
        decomposed: ExportedProgram = exported.run_decompositions({_STABLE_SORT: form})
    return decomposed


def sort_by_comparison(
    values_BN: Tensor, *, stable: bool | None, dim: int = -1, descending: bool = False
) -> tuple[Tensor, Tensor]:
    """The form `count` of a ranking: `sort` of (B, N) along its second axis, by comparing all pairs."""
    if values_BN.dim() != 2 or dim not in (1, -1) or not descending:
        raise InternalError(f"a stable sort of {values_BN.dim()} axes along {dim}, descending: {descending}")
    order_BN = argsort_distinct(ranks_descending(values_BN))
    return values_BN.gather(1, order_BN), order_BN
