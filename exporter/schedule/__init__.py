"""Schedules: which block merges how many tokens, and what that costs. Pure integers, no torch."""

from exporter.schedule.plan import Geometry, Schedule, plan, spread
from exporter.schedule.request import ScheduleKind, ScheduleRequest
from exporter.schedule.workload import Workload

__all__ = ["Geometry", "Schedule", "ScheduleKind", "ScheduleRequest", "Workload", "plan", "spread"]
