"""From a rewritten program to an ONNX model in memory.

In: a `RewrittenProgram`. Out: an `onnx_ir.Model` whose further outputs are matches; `without_matches` removes them.
The exporter of torch translates the operators; everything after that is a literal list of graph passes, chosen so
that the model is small, deterministic and says nothing about the machine it was made on.
"""

import io
import re
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout

import onnx_ir as ir
import torch
from onnx_ir.passes import common
from onnxscript.optimizer import _constant_folding as constant_folding
from torch.export import ExportedProgram

from exporter.capture import without_stack_traces
from exporter.errors import InternalError
from exporter.models.quiet import quiet
from exporter.rewrite.annotate_blocks import annotations
from exporter.targets.onnx.flatten_heads import FlattenHeadsPass
from exporter.targets.onnx.lowering import attention_form, opset, translations
from exporter.targets.onnx.opset import convert, translated_opset
from exporter.targets.target import EmitRequest

_TRANSLATED_FROM = re.compile(r"%(\w+) :")

_FOLD_LIMIT_BYTES = 1 << 30
"""Weights are folded (transposed for MatMul) whatever their size."""


def build(exported: ExportedProgram, request: EmitRequest, asked: int | None = None) -> ir.Model:
    """Translate, simplify, name and annotate.

    Args:
        exported: results are the request's outputs, then matches.
        request: names, metadata, and how attention is spelled.
        asked: the opset of the default domain; None for the one that the forms and the precision need.

    Raises:
        UsageError: the program cannot be said in the opset asked for.
    """
    written = opset(request.forms, request.precision) if asked is None else translated_opset(asked)
    matches = len(exported.graph_signature.user_outputs) - len(request.signature.outputs)
    names = [*request.signature.output_names, *(f"match_{index}" for index in range(matches))]
    model = _translate(exported, request, names, written)
    _simplify(model)
    if attention_form(request.forms).of_rows:
        FlattenHeadsPass()(model)
    _name_by_block(model, annotations(exported.graph))
    common.ClearMetadataAndDocStringPass()(model)
    _check_scatter_free(model)
    _name_batch(model, request)
    _annotate(model, request.metadata)
    if asked is not None:
        convert(model, asked)
    return model


def without_matches(model: ir.Model, request: EmitRequest) -> None:
    """Drop the outputs that exist for the parity check, and what only they need, in place."""
    del model.graph.outputs[len(request.signature.outputs) :]
    common.RemoveUnusedNodesPass()(model)


def _translate(
    exported: ExportedProgram, request: EmitRequest, output_names: Sequence[str], written: int
) -> ir.Model:
    with redirect_stdout(io.StringIO()), without_stack_traces():
        program = torch.onnx.export(
            exported,
            dynamo=True,
            opset_version=written,
            input_names=[spec.name for spec in request.signature.inputs],
            output_names=list(output_names),
            custom_translation_table=translations(request.forms),
            optimize=False,
            verbose=False,
        )
    if program is None:
        raise InternalError("torch.onnx.export returned no program")
    return program.model


def _simplify(model: ir.Model) -> None:
    passes = (
        common.InlinePass(),
        common.RemoveUnusedNodesPass(),
        constant_folding.FoldConstantsPass(
            shape_inference=True, input_size_limit=_FOLD_LIMIT_BYTES, output_size_limit=_FOLD_LIMIT_BYTES
        ),
        common.IdentityEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call]
        common.RemoveUnusedOpsetsPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.OutputFixPass(),
        common.NameFixPass(),
    )
    with quiet():  # a match that is a constant is left alone, with a warning
        for graph_pass in passes:
            graph_pass(model)


def _check_scatter_free(model: ir.Model) -> None:
    scatters = sorted({node.op_type for node in model.graph.all_nodes() if "Scatter" in node.op_type})
    if scatters:
        raise InternalError(f"the ONNX graph holds {', '.join(scatters)}")


def _name_by_block(model: ir.Model, blocks: Mapping[str, str]) -> None:
    """Put the block in front of every node's name, for people and profilers; `block_03/linear_7`.

    The exporter of torch notes down which graph node a node was translated from. One that a later pass made stands
    after those that it was made of.
    """
    label = ""
    for node in model.graph.all_nodes():
        translated = _TRANSLATED_FROM.match(node.metadata_props.get("pkg.torch.onnx.fx_node", ""))
        label = blocks.get(translated[1], label) if translated else label
        if label:
            node.name = f"{label}/{(node.name or node.op_type).removeprefix('node_')}"


def _name_batch(model: ir.Model, request: EmitRequest) -> None:
    """Call a free batch axis what the request calls it, where the exporter of torch made up a symbol.

    Sizes without a name stay so: runtimes take sizes of one name for equal.
    """
    wanted, traced = request.signature.batch, model.graph.inputs[0].shape
    if isinstance(wanted, int) or traced is None or isinstance(traced[0], int):
        return
    symbol = str(traced[0].value)
    values = [*model.graph.inputs, *(output for node in model.graph.all_nodes() for output in node.outputs)]
    for value in values:
        if value.shape is not None and not value.shape.is_static():
            named = [
                size
                if isinstance(size, int) or size.value is None
                else str(size.value).replace(symbol, wanted)
                for size in value.shape
            ]
            value.shape = ir.Shape(named)


def _annotate(model: ir.Model, metadata: Mapping[str, str]) -> None:
    model.producer_name, model.producer_version = "exporter", metadata.get("exporter", "")
    model.doc_string = None
    model.graph.name = metadata.get("name", "model")
    model.metadata_props.clear()
    model.metadata_props.update(metadata)
