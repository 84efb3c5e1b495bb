"""Rewrite: the compiler's middle end: generalise, merge, the exact passes in order, then a second capture.

In: a `Program` and a `Schedule`. Out: a `RewrittenProgram`: a fresh `ExportedProgram` whose every shape is right,
because `torch.export` executed the rewritten graph, and which still returns the matches for the proof.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

from exporter.anatomy import Anatomy, examine, executed_macs
from exporter.anatomy.demand import token_demand
from exporter.capture import EXAMPLE_BATCH, Program, export_graph
from exporter.errors import UsageError, nearest
from exporter.forms import Forms, Precision
from exporter.graph import GraphPass, PassOutcome, copy_graph, run_passes
from exporter.graph.nodes import input_nodes, operands, output_node
from exporter.reduction import Method
from exporter.rewrite.annotate_blocks import annotate_blocks, spread_annotation
from exporter.rewrite.convert_precision import ConvertPrecision
from exporter.rewrite.decompose_stable_sort import decompose_stable_sort
from exporter.rewrite.fold_attention_scale import FoldAttentionScale
from exporter.rewrite.fold_input_normalization import FoldInputNormalization, InsertInputNormalization
from exporter.rewrite.fold_layer_scale import FoldLayerScale
from exporter.rewrite.generalize_token_shapes import GeneralizeTokenShapes
from exporter.rewrite.insert_token_merge import InsertTokenMerge
from exporter.rewrite.remove_dead_tokens import RemoveDeadTokens
from exporter.rewrite.remove_no_ops import RemoveNoOps
from exporter.rewrite.split_fused_projection import SplitFusedProjection
from exporter.schedule import Schedule

OPTIONAL_PASSES: tuple[GraphPass, ...] = (
    RemoveNoOps(),
    FoldInputNormalization(),
    FoldLayerScale(),
    FoldAttentionScale(),
)
"""Exact passes that keep every shape, in order."""

SWITCHES = (*(graph_pass.name for graph_pass in OPTIONAL_PASSES), RemoveDeadTokens.name)
"""What a user can switch off."""


@dataclass(frozen=True, kw_only=True)
class RewriteOptions:
    """What the rewrite has to know beside the schedule.

    Attributes:
        method: who merges with whom.
        method_options: over the method's defaults.
        proportional: whether attention adds log(size).
        normalization: makes the graph take bytes; None for normalised floats.
        disabled: names of passes that must not run.
        batch: images per call; with `dynamic_batch`, only the example.
        dynamic_batch: whether the batch axis stays free.
        precision: that the program computes in; `int8` is a program in fp32, which a target quantises.
        forms: the form that it takes.
    """

    method: Method
    method_options: Mapping[str, float] = field(default_factory=dict)
    proportional: bool = True
    normalization: InsertInputNormalization | None = None
    disabled: frozenset[str] = frozenset()
    batch: int = 1
    dynamic_batch: bool = False
    precision: Precision = "fp32"
    forms: Forms = field(default_factory=Forms)


@dataclass(frozen=True, kw_only=True)
class RewrittenProgram:
    """What the targets emit.

    Attributes:
        exported: returns the model's outputs, then the match of every block that merges, as `record_match` has it.
        eager: the same program as a graph module over the same parameters.
        merging: the graph that was captured, where each merge still is a call of the reduction's functions.
        method: whose matches they are.
        outputs: how many of its results are the model's.
        merging_blocks: which block each match belongs to.
        merged: tokens really merged per block; a scheduled merge that nobody reads is not executed.
        merge_points: by block, the node in `merging` whose value merges, or would; where dead tokens left one.
        executed_macs: multiply-accumulates of one image.
        passes: what each pass did.
    """

    exported: ExportedProgram
    eager: fx.GraphModule
    merging: fx.GraphModule
    method: Method
    outputs: int
    merging_blocks: tuple[int, ...]
    merged: tuple[int, ...]
    merge_points: Mapping[int, str]
    executed_macs: int
    passes: tuple[PassOutcome, ...]

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Run in eager PyTorch; the independent half of every parity check."""
        with torch.no_grad():
            results = self.eager(*inputs)
        return tuple(results)


def rewrite(program: Program, schedule: Schedule, options: RewriteOptions) -> RewrittenProgram:
    """Apply the passes and capture the result.

    Raises:
        UnsupportedGraphError: something in the graph cannot follow the merges.
        UsageError: an unknown pass is switched off, or the program is fixed to another batch.
    """
    _check_options(program, options)
    graph_module = copy_graph(program.graph_module)
    outcomes = run_passes(graph_module, _shape_keeping(options))
    anatomy = examine(graph_module) if schedule.merged else None
    if anatomy is not None:
        annotate_blocks(graph_module.graph, anatomy)
    merge = _plan_merges(graph_module, anatomy, schedule, options) if anatomy is not None else None
    outcomes += run_passes(graph_module, [*_trimming(options), *_typing(options)])
    if merge is not None:
        outcomes += run_passes(graph_module, [merge])
    merged = merge.merged if merge is not None else tuple(0 for _ in schedule.merged)
    if anatomy is not None:
        spread_annotation(graph_module.graph)
    exported = export_graph(
        graph_module, *_examples(graph_module, options), dynamic_batch=options.dynamic_batch
    )
    if options.forms.ranking == "count":
        exported = decompose_stable_sort(exported)
    eager = exported.module(check_guards=False)
    assert isinstance(eager, fx.GraphModule)
    return RewrittenProgram(
        exported=exported,
        eager=eager,
        merging=graph_module,
        method=options.method,
        outputs=len(operands(output_node(program.graph_module.graph))),
        merging_blocks=tuple(block for block, r in enumerate(merged) if r),
        merged=merged,
        merge_points=_merge_points(graph_module, anatomy),
        executed_macs=executed_macs(eager.graph),
        passes=(*program.outcomes, *outcomes),
    )


def _shape_keeping(options: RewriteOptions) -> list[GraphPass]:
    first = [options.normalization] if options.normalization is not None else []
    chosen = [graph_pass for graph_pass in OPTIONAL_PASSES if graph_pass.name not in options.disabled]
    return [*first, *chosen, GeneralizeTokenShapes()]


def _trimming(options: RewriteOptions) -> list[GraphPass]:
    return [] if RemoveDeadTokens.name in options.disabled else [SplitFusedProjection(), RemoveDeadTokens()]


def _typing(options: RewriteOptions) -> list[GraphPass]:
    match options.precision:
        case "fp16" | "bf16" as narrow:
            return [ConvertPrecision(precision=narrow)]
        case _:
            return []


def _plan_merges(
    graph_module: fx.GraphModule, anatomy: Anatomy, schedule: Schedule, options: RewriteOptions
) -> InsertTokenMerge | None:
    """The merges to insert, looked up before dead tokens hide the last block; None where none would be read."""
    if schedule.is_dense:
        return None
    anatomy.check_mergeable(schedule.merged)
    demand = token_demand(graph_module.graph, anatomy.layouts)
    trims = RemoveDeadTokens.name not in options.disabled
    merged = tuple(
        0 if trims and demand[block.merge_point] is not None else r
        for block, r in zip(anatomy.blocks, schedule.merged, strict=True)
    )
    if not any(merged):
        return None
    return InsertTokenMerge(
        anatomy=anatomy,
        merged=merged,
        method=options.method,
        options=options.method.options(options.method_options),
        proportional=options.proportional,
        forms=options.forms,
    )


def _merge_points(graph_module: fx.GraphModule, anatomy: Anatomy | None) -> dict[int, str]:
    left = {node.name for node in graph_module.graph.nodes}
    points = [block.merge_point.name for block in anatomy.blocks] if anatomy is not None else []
    return {block: name for block, name in enumerate(points) if name in left}


def _check_options(program: Program, options: RewriteOptions) -> None:
    for name in options.disabled:
        if name not in SWITCHES:
            raise UsageError(
                f"passes: expected one of {', '.join(SWITCHES)}, got {name}.{nearest(name, SWITCHES)}"
            )
    if program.fixed_batch is None:
        return
    if options.dynamic_batch or options.batch != program.fixed_batch:
        asked = "a dynamic batch" if options.dynamic_batch else f"batch {options.batch}"
        raise UsageError(
            f"model: its graph is fixed to batch {program.fixed_batch}, got {asked}; use --batch {program.fixed_batch}"
        )


def _examples(graph_module: fx.GraphModule, options: RewriteOptions) -> list[Tensor]:
    batch = EXAMPLE_BATCH if options.dynamic_batch else options.batch
    traced = [node.meta["val"] for node in input_nodes(graph_module.graph)]
    return [torch.zeros((batch, *map(int, each.shape[1:])), dtype=each.dtype) for each in traced]
