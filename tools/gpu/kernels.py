"""Where the time of a call goes: GPU kernels by their sum, from PyTorch's profiler."""

from typing import Any

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from exporter.benchmark import Device
from exporter.benchmark.clock import Call

CALLS = 5
MOST_KERNELS = 25
_NAME = 120


def list_kernels(call: Call, device: Device) -> list[dict[str, Any]]:
    """Kernels of one call, the longest first, then one row for all that are not listed.

    Args:
        call: warm.
        device: on a CPU operators take the place of kernels.

    Returns:
        `name`, `calls` (launches in one call), `us` (in one call, all launches together), `share` of the whole.
    """
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device == "cuda" else [])
    with profile(activities=activities) as profiled:
        for _ in range(CALLS):
            call()
        if device == "cuda":
            torch.cuda.synchronize()
    wanted = DeviceType.CUDA if device == "cuda" else DeviceType.CPU
    rows = [
        (
            str(each.key),
            each.count,
            float(getattr(each, f"self_{'device' if device == 'cuda' else 'cpu'}_time_total")),
        )
        for each in profiled.key_averages()
        if each.device_type == wanted
    ]
    return summed(sorted(rows, key=lambda row: -row[2]), CALLS)


def summed(rows: list[tuple[str, int, float]], calls: int) -> list[dict[str, Any]]:
    """Rows of all calls as rows of one, those after the longest in one row."""
    whole = sum(us for _, _, us in rows) or 1.0
    shown, tail = rows[:MOST_KERNELS], rows[MOST_KERNELS:]
    if tail:
        shown = [*shown, (f"{len(tail)} others", sum(row[1] for row in tail), sum(row[2] for row in tail))]
    return [
        {
            "name": name[:_NAME],
            "calls": round(count / calls, 2),
            "us": round(us / calls, 3),
            "share": round(us / whole, 5),
        }
        for name, count, us in shown
    ]
