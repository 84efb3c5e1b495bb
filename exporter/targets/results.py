"""Cut a program down to its first results: the outputs, without the matches that only the parity check reads.

In: an `ExportedProgram`. Out: another one over the same parameters, with a graph of its own.
"""

import copy
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from torch import fx
from torch.export import ExportedProgram, ModuleCallEntry
from torch.export.graph_signature import InputKind
from torch.utils import _pytree as pytree

from exporter.graph.nodes import operands, output_node
from exporter.rewrite import RewrittenProgram
from exporter.targets.runner import Runner

R = TypeVar("R", bound=Runner)

_SAYS_WHERE = ("stack_trace", "nn_module_stack", "source_fn_stack", "from_node", "torch_fn")


def first_results(exported: ExportedProgram, count: int) -> ExportedProgram:
    """The same program without its further results, and without what only they need.

    Given:
        Results (y_1, ..., y_n), n >= count.

    Result:
        (y_1, ..., y_count). Parameters are shared; nodes are not, so that either graph may be changed.
    """
    graph_module = copy.deepcopy(exported.graph_module)
    output = output_node(graph_module.graph)
    output.args = (tuple(operands(output)[:count]),)
    graph_module.graph.eliminate_dead_code()
    graph_module.recompile()
    signature = replace(
        exported.graph_signature, output_specs=list(exported.graph_signature.output_specs[:count])
    )
    return ExportedProgram(
        root=graph_module,
        graph=graph_module.graph,
        graph_signature=signature,
        state_dict=dict(exported.state_dict),
        range_constraints=dict(exported.range_constraints),
        module_call_graph=[_entry(exported, count)],
        example_inputs=exported.example_inputs,
        constants=dict(exported.constants),
        verifiers=[exported.verifier],
    )


def forget_where(exported: ExportedProgram) -> None:
    """Take the notes of a trace off a program, in place: they name files and lines of this machine."""
    for module in exported.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, fx.GraphModule) else []:
            for note in _SAYS_WHERE:
                node.meta.pop(note, None)


def used_parameters(exported: ExportedProgram) -> ExportedProgram:
    """The same program without parameters and constants that nothing reads, such as those that it was typed from.

    A program is saved with all that it has.
    """
    graph_module = copy.deepcopy(exported.graph_module)
    placeholders = {node.name: node for node in graph_module.graph.find_nodes(op="placeholder")}
    kept = []
    for spec in exported.graph_signature.input_specs:
        node = placeholders[spec.arg.name]
        if spec.kind is InputKind.USER_INPUT or node.users:
            kept.append(spec)
        else:
            graph_module.graph.erase_node(node)
    graph_module.recompile()
    names = {spec.target for spec in kept}
    return ExportedProgram(
        root=graph_module,
        graph=graph_module.graph,
        graph_signature=replace(exported.graph_signature, input_specs=kept),
        state_dict={name: value for name, value in exported.state_dict.items() if name in names},
        range_constraints=dict(exported.range_constraints),
        module_call_graph=exported.module_call_graph,
        example_inputs=exported.example_inputs,
        constants={name: value for name, value in exported.constants.items() if name in names},
        verifiers=[exported.verifier],
    )


def shipped_results(program: RewrittenProgram, matches: str) -> int:
    """How many of a program's results an artifact returns, where it keeps its matches (`kept`) or not (`dropped`)."""
    return program.outputs + (len(program.merging_blocks) if matches == "kept" else 0)


def probe_of(
    runner: R, program: RewrittenProgram, matches: str, write: Callable[[int, Path], object]
) -> R | None:
    """What returns the matches as well: the same artifact where they are kept, else a second one, never shipped.

    Args:
        runner: over the shipped artifact.
        program: that it was made of.
        matches: `kept` or `dropped`.
        write: writes an artifact that returns this many results.

    Returns:
        Loaded; None where nothing merges.
    """
    count = len(program.merging_blocks)
    signature = runner.signature.with_matches(count)
    if not count or matches == "kept":
        return replace(runner, signature=signature) if count else None
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / runner.path.name
        write(program.outputs + count, path)
        prober = replace(runner, path=path, signature=signature, _engine=None)
        prober.load()
    return prober


def _entry(exported: ExportedProgram, count: int) -> ModuleCallEntry:
    """The top of the program as its caller sees it."""
    entry = exported.module_call_graph[0]
    assert entry.signature is not None
    spec = pytree.tree_structure(tuple(range(count)))
    signature = replace(entry.signature, outputs=entry.signature.outputs[:count], out_spec=spec)
    return ModuleCallEntry(fqn=entry.fqn, signature=signature)
