"""Schedules: how many tokens leave each block, and what the rest costs. Pure integers, no torch."""

from exporter.schedule.plan import (
    Geometry,
    Place,
    Schedule,
    all_patches_but_one,
    half_of_patches,
    none_dropped,
    plan,
    spread,
)
from exporter.schedule.request import ScheduleKind, ScheduleRequest
from exporter.schedule.workload import Workload

__all__ = [
    "Geometry",
    "Place",
    "Schedule",
    "ScheduleKind",
    "ScheduleRequest",
    "Workload",
    "all_patches_but_one",
    "half_of_patches",
    "none_dropped",
    "plan",
    "spread",
]
