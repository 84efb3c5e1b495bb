"""Pipeline: from a recipe to a verified bundle, and the commands that verify, race and describe one."""

from exporter.pipeline.bench import Benched, bench
from exporter.pipeline.bundle_files import parity_record
from exporter.pipeline.export import Exported, build, export
from exporter.pipeline.ladder import Laddered, LadderRequest, adaptive_request, ladder
from exporter.pipeline.ladder_goal import LadderGoal
from exporter.pipeline.ladder_record import cautions
from exporter.pipeline.measure import Measured
from exporter.pipeline.observe import Note, Observer, silent
from exporter.pipeline.optimize import optimize
from exporter.pipeline.plan import Planned, block_macs, gmacs, plan_export
from exporter.pipeline.racing import BenchOptions
from exporter.pipeline.report import report
from exporter.pipeline.sweep import Goal, SweepRequest, sweep
from exporter.pipeline.validate import Validated, validate

__all__ = [
    "BenchOptions",
    "Benched",
    "Exported",
    "Goal",
    "LadderGoal",
    "LadderRequest",
    "Laddered",
    "Measured",
    "Note",
    "Observer",
    "Planned",
    "SweepRequest",
    "Validated",
    "adaptive_request",
    "bench",
    "block_macs",
    "build",
    "cautions",
    "export",
    "gmacs",
    "ladder",
    "optimize",
    "parity_record",
    "plan_export",
    "report",
    "silent",
    "sweep",
    "validate",
]
