"""Options of a rewrite, and the record that its passes share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.export import ExportedProgram

from exporter.anatomy import Anatomy
from exporter.forms import Forms, Precision
from exporter.reduction import Method, Site
from exporter.rewrite.fold_input_normalization import InsertInputNormalization
from exporter.schedule import Schedule


@dataclass(frozen=True, kw_only=True)
class RewriteOptions:
    """Options of the rewrite, apart from the schedule.

    Attributes:
        method: that chooses which tokens merge.
        method_options: over the method's defaults.
        proportional: whether attention adds log(size).
        dense_outputs: whether every original token gets an entry again, where something needs one for each; otherwise
            that is refused.
        reduced_outputs: whether an output with an entry per token has the tokens that are left.
        redundancy: whether a further output tells how alike the tokens are that merge (`reduction.redundancy`).
        normalization: makes the graph take bytes; None for normalised floats.
        disabled: names of passes that must not run.
        batch: images per call; with `dynamic_batch`, only the example.
        dynamic_batch: whether the batch axis stays free.
        precision: that the program computes in; `int8` is a program in fp32, which a target quantises, and `fp8` one in
            fp16 but for the products with weights.
        forms: the form that it takes.
        learned: of the method, by block: tensors that its decision reads besides the graph's own values.
        calibration: for precision fp8, (n, ...) for every input, as the program takes them.
    """

    method: Method
    method_options: Mapping[str, Any] = field(default_factory=dict)
    proportional: bool = True
    dense_outputs: bool = False
    reduced_outputs: bool = False
    redundancy: bool = False
    normalization: InsertInputNormalization | None = None
    disabled: frozenset[str] = frozenset()
    batch: int = 1
    dynamic_batch: bool = False
    precision: Precision = "fp32"
    forms: Forms = field(default_factory=Forms)
    learned: Mapping[int, tuple[Tensor, ...]] = field(default_factory=dict, repr=False, compare=False)
    calibration: tuple[Tensor, ...] | None = field(default=None, repr=False, compare=False)


@dataclass(kw_only=True)
class PassContext:
    """Shared by the passes of one rewrite; attributes with a default are written by the pass that they name.

    Attributes:
        schedule: asked for; its `merged` is empty for a tower that is exported without merging.
        options: asked for.
        anatomy: of the graph with general shapes, before anything is cut or merged; by `AnnotateBlocks`.
        sites: what leaves each block, None where nothing does or nothing reads the difference; by `PlanMerges`.
        ranges: by linear layer, the largest absolute value of its operand; by `CalibrateActivations`.
        scales: by weight, the unit of its operand in fp8; by `QuantizeProducts`.
        exported: the rewritten graph, captured a second time; by `CaptureAgain`, replaced by `DecomposeStableSort`.
    """

    schedule: Schedule
    options: RewriteOptions
    anatomy: Anatomy | None = None
    sites: tuple[Site | None, ...] = ()
    ranges: Mapping[str, float] = field(default_factory=dict)
    scales: dict[str, float] = field(default_factory=dict)
    exported: ExportedProgram | None = None
