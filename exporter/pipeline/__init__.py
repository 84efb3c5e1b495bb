"""Pipeline: the compiler's road from a recipe to a proven bundle, and back in for validation."""

from exporter.pipeline.observe import Note, Observer, silent
from exporter.pipeline.plan import Planned, gmacs, plan_export
from exporter.pipeline.proof import Validated, validate
from exporter.pipeline.road import Exported, build, export

__all__ = [
    "Exported",
    "Note",
    "Observer",
    "Planned",
    "Validated",
    "build",
    "export",
    "gmacs",
    "plan_export",
    "silent",
    "validate",
]
