"""Validation: parity of an artifact with eager PyTorch, and accuracy on real images."""

from exporter.validation.accuracy import (
    Hits,
    hits,
    join_hits,
    report_accuracy,
)
from exporter.validation.chance import best_answers, label_doubt
from exporter.validation.class_labels import KnownClasses, matched_by_text
from exporter.validation.decoding import decode, default_workers
from exporter.validation.fidelity import fidelity, patch_fidelity
from exporter.validation.follow import needed_tokens, rounding_errors
from exporter.validation.gate import require, require_finite
from exporter.validation.image_set import ImagePairs, ImageSet, image_arrays
from exporter.validation.images import image_pairs, open_images
from exporter.validation.inputs import Cases, image_inputs, step_inputs, tensor_inputs
from exporter.validation.locate_error import Suspect, locate_error
from exporter.validation.outputs import Contender, Outputs, collect
from exporter.validation.parity import (
    TOLERANCES,
    Comparison,
    ParityResult,
    Tolerances,
    along_matches,
    compare,
    verify,
)
from exporter.validation.reference import Reference, run_eager, tensors_of
from exporter.validation.retrieval import (
    RetrievalReport,
    rank_pairs,
    report_retrieval,
)
from exporter.validation.similarity import SimilarityReport, pair_cosines, report_similarity
from exporter.validation.tables import read_lines, read_templates
from exporter.validation.text_set import ScoredPairs, TextSet, read_texts
from exporter.validation.trace import block_errors, groups_of
from exporter.validation.zero_shot import class_embeddings, zero_shot_logits

__all__ = [
    "TOLERANCES",
    "Cases",
    "Comparison",
    "Contender",
    "Hits",
    "ImagePairs",
    "ImageSet",
    "KnownClasses",
    "Outputs",
    "ParityResult",
    "Reference",
    "RetrievalReport",
    "ScoredPairs",
    "SimilarityReport",
    "Suspect",
    "TextSet",
    "Tolerances",
    "along_matches",
    "best_answers",
    "block_errors",
    "class_embeddings",
    "collect",
    "compare",
    "decode",
    "default_workers",
    "fidelity",
    "groups_of",
    "hits",
    "image_arrays",
    "image_inputs",
    "image_pairs",
    "join_hits",
    "label_doubt",
    "locate_error",
    "matched_by_text",
    "needed_tokens",
    "open_images",
    "pair_cosines",
    "patch_fidelity",
    "rank_pairs",
    "read_lines",
    "read_templates",
    "read_texts",
    "report_accuracy",
    "report_retrieval",
    "report_similarity",
    "require",
    "require_finite",
    "rounding_errors",
    "run_eager",
    "step_inputs",
    "tensor_inputs",
    "tensors_of",
    "verify",
    "zero_shot_logits",
]
