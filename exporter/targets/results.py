"""Cut a program down to its first results: the outputs, without the matches that only the proof reads.

In: an `ExportedProgram`. Out: another one over the same parameters, with a graph of its own.
"""

import copy
from dataclasses import replace

from torch.export import ExportedProgram, ModuleCallEntry
from torch.utils import _pytree as pytree

from exporter.graph.nodes import operands, output_node


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


def _entry(exported: ExportedProgram, count: int) -> ModuleCallEntry:
    """The top of the program as its caller sees it."""
    entry = exported.module_call_graph[0]
    assert entry.signature is not None
    spec = pytree.tree_structure(tuple(range(count)))
    signature = replace(entry.signature, outputs=entry.signature.outputs[:count], out_spec=spec)
    return ModuleCallEntry(fqn=entry.fqn, signature=signature)
