"""Rewrite: the compiler's middle end.

In: a `Program` and a `Schedule`. Out: a `RewrittenProgram`: an `ExportedProgram` with every shape traced by
`torch.export`, which returns the matches as well, for the parity check.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

from exporter.anatomy import executed_macs
from exporter.capture import Program
from exporter.errors import UsageError
from exporter.graph import PassOutcome, copy_graph, run_passes
from exporter.graph.nodes import operands, output_node
from exporter.reduction import Method, Site
from exporter.reduction.match import Match, read_match
from exporter.rewrite.capture_again import eager_module
from exporter.rewrite.context import PassContext, RewriteOptions
from exporter.rewrite.pipeline import PASSES, SWITCHES, check_name, configured_passes
from exporter.schedule import Schedule


@dataclass(frozen=True, kw_only=True)
class RewrittenProgram:
    """What the targets emit.

    Attributes:
        exported: returns the outputs, then the match of every block that merges, in the form of `record_match`.
        eager: the same program as a graph module over the same parameters.
        merging: the graph that was captured, where each merge still is a call of the reduction's functions.
        method: whose matches they are.
        outputs: how many of its results are no matches: the model's own, and the redundancy where it is asked for.
        sites: what leaves each block, None where nothing does; one that nothing reads is not executed.
        executed_macs: multiply-accumulates of one image.
        scales: by weight, the unit of the activations in fp8 that it is multiplied by.
        passes: what each pass did, apart from those that only record something.
    """

    exported: ExportedProgram
    eager: fx.GraphModule
    merging: fx.GraphModule
    method: Method
    outputs: int
    sites: tuple[Site | None, ...]
    executed_macs: int
    passes: tuple[PassOutcome, ...]
    scales: Mapping[str, float] = field(default_factory=dict)

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Run in eager PyTorch; the independent half of every parity check."""
        with torch.no_grad():
            results = self.eager(*inputs)
        return tuple(results)

    @property
    def merged(self) -> tuple[int, ...]:
        """Tokens that merge in each block."""
        return tuple(site.r - site.dropped if site else 0 for site in self.sites)

    @property
    def merging_blocks(self) -> tuple[int, ...]:
        """Which block each match belongs to; none where the method decides nothing."""
        return tuple(block for block, site in enumerate(self.sites) if site and self.method.decides)

    def matches(self, records: Iterable[Tensor]) -> dict[int, Match]:
        """By block, the matches that this program recorded, or an engine."""
        sites = [(block, site) for block, site in enumerate(self.sites) if site]
        return {
            block: read_match(record, site.r, site.dropped, absent=self.method.absent)
            for (block, site), record in zip(sites, records, strict=False)
        }


def rewrite(program: Program, schedule: Schedule, options: RewriteOptions) -> RewrittenProgram:
    """Run the pipeline on a copy of a captured graph.

    Raises:
        UnsupportedGraphError: something in the graph cannot follow the merges.
        UsageError: an unknown pass is switched off, the program is fixed to another batch, or it has no redundancy.
    """
    for name in options.disabled:
        check_name(name, SWITCHES, "passes")
    _check_batch(program, options)
    options = replace(options, method=options.method.with_options(options.method_options))
    context = PassContext(schedule=schedule, options=options)
    graph_module = copy_graph(program.graph_module)
    outcomes = run_passes(graph_module, configured_passes(context))
    if options.redundancy and not any(context.sites):
        raise UsageError(
            f"schedule: expected tokens that merge before the outputs are read, got {schedule.requested}; merge in "
            "earlier blocks"
        )
    notes = {each.name for each in PASSES if each.only_notes}
    eager = eager_module(context)
    assert context.exported is not None
    outputs = len(operands(output_node(program.graph_module.graph))) + options.redundancy
    return RewrittenProgram(
        exported=context.exported,
        eager=eager,
        merging=graph_module,
        method=options.method,
        outputs=outputs,
        sites=context.sites,
        executed_macs=executed_macs(eager.graph, outputs),
        scales=context.scales,
        passes=(*program.outcomes, *(outcome for outcome in outcomes if outcome.name not in notes)),
    )


def _check_batch(program: Program, options: RewriteOptions) -> None:
    if program.fixed_batch is None:
        return
    if options.dynamic_batch or options.batch != program.fixed_batch:
        asked = "a dynamic batch" if options.dynamic_batch else f"batch {options.batch}"
        raise UsageError(
            f"model: its graph is fixed to batch {program.fixed_batch}, got {asked}; use --batch {program.fixed_batch}"
        )
