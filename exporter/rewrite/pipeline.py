"""The compiler's middle end as one literal list: every pass, in order, phase by phase."""

from collections.abc import Iterator
from dataclasses import dataclass

from exporter.capture import CANONICAL_PASSES
from exporter.errors import UsageError, nearest
from exporter.graph import GraphPass
from exporter.rewrite.annotate_blocks import AnnotateBlocks, SpreadAnnotation
from exporter.rewrite.approximate_gelu import ApproximateGelu
from exporter.rewrite.calibrate_activations import CalibrateActivations
from exporter.rewrite.capture_again import CaptureAgain
from exporter.rewrite.context import PassContext
from exporter.rewrite.convert_precision import ConvertPrecision
from exporter.rewrite.decompose_stable_sort import DecomposeStableSort
from exporter.rewrite.fold_attention_scale import FoldAttentionScale
from exporter.rewrite.fold_constants import FoldConstants
from exporter.rewrite.fold_input_normalization import FoldInputNormalization, InsertInputNormalization
from exporter.rewrite.fold_layer_scale import FoldLayerScale
from exporter.rewrite.fold_metric import FoldMetric
from exporter.rewrite.fold_tables import FoldTables
from exporter.rewrite.fuse_residual_norm import FuseResidualNorm
from exporter.rewrite.generalize_token_shapes import GeneralizeTokenShapes
from exporter.rewrite.insert_merge_around import InsertMergeAround
from exporter.rewrite.insert_token_merge import InsertTokenMerge
from exporter.rewrite.plan_merges import PlanMerges
from exporter.rewrite.project_patches import ProjectPatches
from exporter.rewrite.quantize_products import QuantizeProducts
from exporter.rewrite.remove_dead_tokens import RemoveDeadTokens
from exporter.rewrite.remove_no_ops import RemoveNoOps
from exporter.rewrite.split_fused_projection import SplitFusedProjection


@dataclass(frozen=True)
class Phase:
    """Consecutive passes with one purpose."""

    purpose: str
    passes: tuple[type[GraphPass], ...]


PIPELINE: tuple[Phase, ...] = (
    Phase("give every captured graph one form", CANONICAL_PASSES),
    Phase("take bytes", (InsertInputNormalization,)),
    Phase(
        "fold, exactly and keeping every shape",
        (RemoveNoOps, FoldConstants, FoldInputNormalization, FoldLayerScale, FoldAttentionScale),
    ),
    Phase("let shapes follow the tokens", (GeneralizeTokenShapes,)),
    Phase("find blocks and plan merges", (AnnotateBlocks, PlanMerges, FoldTables)),
    Phase("compute only tokens that are read", (SplitFusedProjection, RemoveDeadTokens)),
    Phase("type for a target", (CalibrateActivations, ConvertPrecision)),
    Phase("merge", (InsertTokenMerge, InsertMergeAround, SpreadAnnotation)),
    Phase(
        "take a target's forms",
        (FoldMetric, ProjectPatches, QuantizeProducts, ApproximateGelu, FuseResidualNorm, SpreadAnnotation),
    ),
    Phase("capture", (CaptureAgain,)),
    Phase("legalize for a target", (DecomposeStableSort,)),
)
"""All phases. The first one runs inside `capture`, once for all rewrites of a model."""

PASSES: tuple[type[GraphPass], ...] = tuple(each for phase in PIPELINE for each in phase.passes)

PASS_NAMES: tuple[str, ...] = tuple(dict.fromkeys(each.name for each in PASSES))

SWITCHES: tuple[str, ...] = tuple(each.name for each in PASSES if each.optional)
"""What a user can switch off."""


def configured_passes(context: PassContext) -> Iterator[GraphPass]:
    """The passes after capture that have something to do, each made when the one before has run."""
    for pass_type in PASSES[len(CANONICAL_PASSES) :]:
        graph_pass = pass_type.configured(context) if pass_type.name not in context.options.disabled else None
        if graph_pass is not None:
            yield graph_pass


def check_name(name: str, known: tuple[str, ...], where: str) -> None:
    """Raise unless a pass has this name.

    Args:
        name: that the user wrote.
        known: the names that are possible.
        where: the option or the key that it was written in.

    Raises:
        UsageError: with the names that are possible, and the nearest one.
    """
    if name not in known:
        raise UsageError(f"{where}: expected one of {', '.join(known)}, got {name}.{nearest(name, known)}")
