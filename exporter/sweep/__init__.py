"""Sweeps: a grid of schedules built, measured and compared; schedules found for a goal. No torch."""

from exporter.sweep.cache import Conditions, Found, Store, open_store
from exporter.sweep.candidates import Candidate, Space, candidates, with_drop_shares
from exporter.sweep.drive import (
    Progress,
    Work,
    drive,
    finished,
    jobs_that_fit,
)
from exporter.sweep.front import front_names, pareto_front, quality_measure
from exporter.sweep.grid import Axes, Point, families, grid, with_dense
from exporter.sweep.latency import LatencyTable, Measurement, fit, segment_weights
from exporter.sweep.record import (
    SWEEP_FILE,
    Built,
    Evaluation,
    Failure,
    PointResult,
    Quality,
    QualityMeasure,
    Solution,
    SweepRecord,
    Timed,
    read_record,
    write_record,
)
from exporter.sweep.solve import solve_max_drop, solve_min_speedup
from exporter.sweep.table_engines import lift, table_counts, table_engines
from exporter.sweep.workers import Builder

__all__ = [
    "SWEEP_FILE",
    "Axes",
    "Builder",
    "Built",
    "Candidate",
    "Conditions",
    "Evaluation",
    "Failure",
    "Found",
    "LatencyTable",
    "Measurement",
    "Point",
    "PointResult",
    "Progress",
    "Quality",
    "QualityMeasure",
    "Solution",
    "Space",
    "Store",
    "SweepRecord",
    "Timed",
    "Work",
    "candidates",
    "drive",
    "families",
    "finished",
    "fit",
    "front_names",
    "grid",
    "jobs_that_fit",
    "lift",
    "open_store",
    "pareto_front",
    "quality_measure",
    "read_record",
    "segment_weights",
    "solve_max_drop",
    "solve_min_speedup",
    "table_counts",
    "table_engines",
    "with_dense",
    "with_drop_shares",
    "write_record",
]
