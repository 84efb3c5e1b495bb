"""Find where an engine goes wrong: after which pass, and in which block. Runs only when a parity check has failed.

In: the rewrite that the engine was emitted from. Out: a phrase for the error message.

The rewrite is run again, and the graph after each of its passes is executed in eager PyTorch. Before tokens merge it
must compute what the captured model computes; afterwards, what the reference program computes along the same matches.
"""

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx

from exporter.anatomy.merge_points import cuts
from exporter.capture import Program
from exporter.forms import Precision
from exporter.graph import GraphPass, copy_graph, listening
from exporter.rewrite import PASS_NAMES, RewriteOptions, RewrittenProgram, rewrite
from exporter.rewrite.annotate_blocks import HEAD, annotations, block_label, part_name
from exporter.rewrite.capture_again import CaptureAgain
from exporter.rewrite.convert_precision import ConvertPrecision
from exporter.schedule import Schedule
from exporter.validation.follow import Recorder, follow_matches, rounding_errors
from exporter.validation.parity import TOLERANCES, ParityResult, compare

_ROUNDING: Mapping[Precision, float] = {"fp32": 1e-3, "fp16": 3e-2, "bf16": 1e-1, "fp8": 3e-1}
"""Relative error of the tokens after a block up to which rounding explains it."""


@dataclass(frozen=True, kw_only=True)
class Suspect:
    """The rewrite that a wrong engine was emitted from.

    Attributes:
        program: captured.
        schedule: of the rewrite.
        options: of the rewrite; precision and forms are the engine's.
        reference: rewritten in fp32 and the plain forms: what the engine was compared with.
    """

    program: Program
    schedule: Schedule
    options: RewriteOptions
    reference: RewrittenProgram


@dataclass(frozen=True, kw_only=True)
class _Stage:
    """The graph after a pass, what it was executed on, and what it gave."""

    name: str
    precision: Precision
    graph_module: fx.GraphModule
    inputs: Sequence[Tensor]
    results: Sequence[Tensor]


def locate_error(suspect: Suspect, inputs: Sequence[Tensor], parity: ParityResult) -> str:
    """Where the numbers part, as a phrase.

    Args:
        suspect: the engine's rewrite.
        inputs: one batch, as the engine takes it, in the order of the call.
        parity: the failed check of the engine.
    """
    program, graphs = _rewrite_again(suspect)
    stages = _stages(suspect, graphs, inputs)
    before = captured = next(stages)
    for stage in stages:
        if not _agrees(suspect.reference, captured, stage):
            where = _first_wrong(suspect.reference, program, before, stage)
            return f"in eager PyTorch the numbers part after pass {stage.name}, {where}"
        before = stage
    blocks = zip(program.merging_blocks, parity.match_agreement, strict=False)
    differing = [block for block, share in blocks if share < 1]
    place = f"; its matches first differ in {part_name(block_label(differing[0]))}" if differing else ""
    agree = f"the graphs after all {len(graphs)} passes agree in eager PyTorch"
    return f"{agree}, so the difference comes from the engine{place}"


def _rewrite_again(suspect: Suspect) -> tuple[RewrittenProgram, dict[str, fx.GraphModule]]:
    graphs: dict[str, fx.GraphModule] = {}

    def keep(graph_pass: GraphPass, graph_module: fx.GraphModule) -> None:
        graphs[graph_pass.name] = copy_graph(graph_module)

    with listening(keep):
        program = rewrite(suspect.program, suspect.schedule, suspect.options)
    return program, graphs


def _stages(
    suspect: Suspect, graphs: Mapping[str, fx.GraphModule], inputs: Sequence[Tensor]
) -> Iterator[_Stage]:
    """The captured model first, on the images normalised outside of it."""
    normalization, precision = suspect.options.normalization, suspect.options.precision
    given = inputs if normalization is None else [normalization.normalized(*inputs)]
    typed = PASS_NAMES.index(ConvertPrecision.name)
    for name, graph_module in {"": suspect.program.graph_module, **graphs}.items():
        taken = inputs if name else given
        with torch.no_grad():
            results = graph_module(*taken)
        is_typed = bool(name) and precision in _ROUNDING and PASS_NAMES.index(name) >= typed
        yield _Stage(
            name=name,
            precision=precision if is_typed else "fp32",
            graph_module=graph_module,
            inputs=taken,
            results=results,
        )


def _agrees(reference: RewrittenProgram, captured: _Stage, stage: _Stage) -> bool:
    outputs, records = stage.results[: reference.outputs], stage.results[reference.outputs :]
    allowed, expected, regret = TOLERANCES[stage.precision], captured.results, 0.0
    if records:
        expected, regret = follow_matches(reference, stage.inputs, records)
    return regret <= allowed.tie and not any(
        compare(got.numpy(), wanted.numpy()).shortfalls(allowed)
        for got, wanted in zip(outputs, expected, strict=True)
    )


def _first_wrong(
    reference: RewrittenProgram, program: RewrittenProgram, before: _Stage, stage: _Stage
) -> str:
    """The first part of the model that is wrong, as a phrase."""
    records = stage.results[program.outputs :]
    if PASS_NAMES.index(stage.name) >= PASS_NAMES.index(CaptureAgain.name):
        pairs = zip(program.merging_blocks, records, before.results[program.outputs :], strict=True)
        wrong = (block for block, one, other in pairs if not torch.equal(one, other))
        return next((f"in the match of block {block}" for block in wrong), "though no match differs")
    limit = _ROUNDING[stage.precision]
    if records:
        merging = replace(program, merging=stage.graph_module)
        errors = rounding_errors(reference, merging, stage.inputs)
        wrong = (block for block, error in errors.items() if not error <= limit)
        return next((f"before the merge of block {block}" for block in wrong), f"in {part_name(HEAD)}")
    labels = annotations(reference.merging.graph)
    names = {labels[node.name]: node.name for node in cuts(before.graph_module.graph) if node.name in labels}
    earlier, later = (_values(each, names.values()) for each in (before, stage))
    for label, name in names.items():
        if name in later and not _relative_error(later[name], earlier[name]) <= limit:
            return f"in {part_name(label)}"
    return f"in {part_name(HEAD)}"


def _values(stage: _Stage, names: Container[str]) -> dict[str, Tensor]:
    recorder = Recorder(stage.graph_module, lambda node: node.name if node.name in names else None)
    with torch.no_grad():
        recorder.run(*stage.inputs)
    return recorder.kept


def _relative_error(one: Tensor, other: Tensor) -> float:
    """|| one - other || / || other || over the tokens that both have."""
    shared = tuple(slice(min(sizes)) for sizes in zip(one.shape, other.shape, strict=True))
    wide = other[shared].double()
    return float((one[shared].double() - wide).norm() / wide.norm())
