"""Schedules: how many tokens leave each block, and what the rest costs. Pure integers, no torch."""

from exporter.schedule.around import Grid, none_of_grid
from exporter.schedule.plan import (
    Geometry,
    Place,
    Schedule,
    all_dropped,
    all_patches_but_one,
    half_of_patches,
    keep_of_current,
    keep_of_initial,
    none_dropped,
    plan,
    spread,
)
from exporter.schedule.published import PUBLISHED
from exporter.schedule.request import FORMS, ScheduleKind, ScheduleRequest
from exporter.schedule.workload import Workload

__all__ = [
    "FORMS",
    "PUBLISHED",
    "Geometry",
    "Grid",
    "Place",
    "Schedule",
    "ScheduleKind",
    "ScheduleRequest",
    "Workload",
    "all_dropped",
    "all_patches_but_one",
    "half_of_patches",
    "keep_of_current",
    "keep_of_initial",
    "none_dropped",
    "none_of_grid",
    "plan",
    "spread",
]
