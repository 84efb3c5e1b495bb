"""Capture: a model becomes a graph.

In: an `nn.Module` or a saved program. Out: a `Program`, whose graph holds the inputs, the parameters as
attributes, and every attention as one `scaled_dot_product_attention` node. The batch axis stays symbolic wherever
the model allows it, so that the same graph serves any batch; tokens are static.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import fx, nn
from torch.export import Dim, ExportedProgram

from exporter.capture.canonicalize_attention import CanonicalizeAttention, FoldConstantMasks
from exporter.capture.canonicalize_key_masks import CanonicalizeKeyMasks
from exporter.capture.remove_trace_artifacts import RemoveTraceArtifacts
from exporter.errors import UnsupportedGraphError
from exporter.graph.graph_pass import GraphPass, PassOutcome, run_passes
from exporter.graph.ids import id_inputs, protect
from exporter.graph.nodes import EXAMPLE_BATCH as EXAMPLE_BATCH
from exporter.graph.nodes import input_nodes, output_node
from exporter.graph.operators import sdpa

CANONICAL_PASSES: tuple[type[GraphPass], ...] = (
    RemoveTraceArtifacts,
    CanonicalizeAttention,
    FoldConstantMasks,
    CanonicalizeKeyMasks,
)


@dataclass(frozen=True, kw_only=True)
class Program:
    """A captured model.

    Attributes:
        graph_module: a placeholder (B, ...) for every input, output a tuple of tensors.
        fixed_batch: the only batch that the graph can run, or None if any.
        outcomes: what canonicalisation did.
    """

    graph_module: fx.GraphModule
    fixed_batch: int | None
    outcomes: tuple[PassOutcome, ...] = ()


def capture(
    model: nn.Module | ExportedProgram,
    *examples: torch.Tensor,
    protected: int = 1,
    largest_batch: int | None = None,
) -> Program:
    """Trace a model in evaluation mode.

    Args:
        model: called with a tensor for every input; returns a tensor or a flat tuple or list of tensors.
        examples: (EXAMPLE_BATCH, ...) for every input, in the order of the call; only shapes and dtypes matter.
        protected: of a text encoder, how many first tokens never merge.
        largest_batch: up to which the model's own code computes the same way; None where it asks for no batch.

    Raises:
        UnsupportedGraphError: the model cannot be traced with static shapes, or has other inputs or outputs.
    """
    exported = model if isinstance(model, ExportedProgram) else trace(model, examples, largest_batch)
    graph_module = _flat(exported.module(check_guards=False))
    batch = input_nodes(graph_module.graph)[0].meta["val"].shape[0]
    takes_ids = bool(id_inputs(graph_module.graph))
    protect(graph_module.graph, protected)
    passes = [each() for each in CANONICAL_PASSES if takes_ids or each is not CanonicalizeKeyMasks]
    outcomes = run_passes(graph_module, passes)
    return Program(
        graph_module=graph_module,
        fixed_batch=batch if isinstance(batch, int) else None,
        outcomes=outcomes,
    )


def export_graph(
    module: nn.Module, *examples: torch.Tensor, dynamic_batch: bool, largest_batch: int | None = None
) -> ExportedProgram:
    """`torch.export` with everything else about it settled: no gradients, an optional free batch axis of all inputs."""
    batch = Dim("batch", max=largest_batch)
    shapes = tuple({0: batch} for _ in examples) if dynamic_batch else None
    with torch.no_grad(), without_stack_traces(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(module, examples, dynamic_shapes=shapes)


@contextmanager
def without_stack_traces() -> Iterator[None]:
    """Graphs that are traced meanwhile do not say where in Python a node comes from.

    Collecting it takes a sixth of an export's time; what is written names no file of this machine anyway.
    """
    before = fx.config.do_not_emit_stack_traces
    fx.config.do_not_emit_stack_traces = True
    try:
        yield
    finally:
        fx.config.do_not_emit_stack_traces = before


def trace(
    model: nn.Module, examples: tuple[torch.Tensor, ...], largest_batch: int | None = None
) -> ExportedProgram:
    """`torch.export` of a model in evaluation mode, with a free batch if it allows one; arguments as of `capture`.

    Raises:
        UnsupportedGraphError: it cannot be traced with static shapes.
    """
    model.eval().requires_grad_(False)
    try:
        return export_graph(model, *examples, dynamic_batch=True, largest_batch=largest_batch)
    except Exception as symbolic:  # torch.export has no common error type
        try:
            return export_graph(model, *examples, dynamic_batch=False)
        except Exception:
            raise UnsupportedGraphError(
                f"model: torch.export cannot trace it ({_first_line(symbolic)}); expected a model without "
                "data-dependent control flow; try it with torch.export.export(model, (images,)) first"
            ) from symbolic


def _flat(module: nn.Module) -> fx.GraphModule:
    """Plain calling convention: positional arguments in, a flat tuple of tensors out."""
    assert isinstance(module, fx.GraphModule)
    graph = module.graph
    output = output_node(graph)
    values = output.args[0]
    given = values if isinstance(values, list | tuple) else (values,)
    flat = tuple(value for value in given if isinstance(value, fx.Node))
    if len(flat) != len(given):
        raise UnsupportedGraphError("model: expected it to return a tensor or a flat tuple of tensors")
    output.args = (flat,)
    graph.set_codegen(fx.graph.CodeGen())
    graph.eliminate_dead_code(_has_effects)
    graph_module = fx.GraphModule(module, graph)
    graph_module.eval()
    return graph_module


def _has_effects(node: fx.Node) -> bool:
    """As FX says, except that attention draws nothing at random here: a block that no output reads goes."""
    return node.target != sdpa and node.is_impure()


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]
