"""Where the time of a call goes: GPU kernels by block of the model and by what they do, from PyTorch's profiler."""

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Literal, get_args

import torch
from torch import Tensor, fx
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function

from exporter.benchmark import Device
from exporter.rewrite.annotate_blocks import KEY, STEM

Group = Literal["attention", "merging", "products", "rest"]

_GROUPS: tuple[tuple[Group, str], ...] = (
    ("attention", r"attention|attend|fmha|flash|sdpa"),
    ("merging", r"merg|match|partner|list_tome|energy|deal|rank|top_?k|sort|gather|scatter|index|embedding"),
    (
        "products",
        r"gemm|gemv|cutlass|cublas|nvjet|xmma|split_?k|conv|linear|(^|[^a-z])(add|b|badd)?mm([^a-z]|$)",
    ),
)
"""By name; the first that matches. The product that compares tokens, and the one that sums the merged, are products."""

_CALLS = 3
_CUDA_MARK, _CPU_MARK = "spin_kernel", "next block"
_LONGEST_NAME = 100


def group_of(name: str) -> Group:
    """What a kernel or operator does, by its name."""
    return next((group for group, pattern in _GROUPS if re.search(pattern, name.lower())), "rest")


def list_kernels(program: fx.GraphModule, images: Tensor, device: Device) -> list[dict[str, Any]]:
    """Kernels of one call, launched one by one; on a CPU operators.

    Args:
        program: annotated with its blocks; it has run before.
        images: a batch on the device.
        device: that it runs on.

    Returns:
        `block`, `group`, `name`, `launches` and `us` of one call, in the order of the blocks, the longest first.
    """
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device == "cuda" else [])
    with torch.inference_mode(), profile(activities=activities) as profiled:
        for _ in range(_CALLS):
            marking = _Marking(program, device)
            marking.run(images)
        if device == "cuda":
            torch.cuda.synchronize()
    mark = _CUDA_MARK if device == "cuda" else _CPU_MARK
    wanted = DeviceType.CUDA if device == "cuda" else DeviceType.CPU
    events = sorted((each for each in profiled.events() if each.device_type == wanted), key=_start)
    timed = ((each.name, each.time_range.elapsed_us() if device == "cuda" else each.self_cpu_time_total)
             for each in events)  # fmt: skip
    return summed(timed, mark, marking.labels * _CALLS)


def summed(timed: Iterable[tuple[str, float]], mark: str, labels: Iterable[str]) -> list[dict[str, Any]]:
    """Kernels in the order of their launch, by block, group and name; a mark begins the block of the next label."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    following, label = iter(labels), STEM
    for name, us in timed:
        if mark in name:
            label = next(following, label)
        else:
            found[label, name].append(us)
    rows = [
        {
            "block": block,
            "group": group_of(name),
            "name": name[:_LONGEST_NAME],
            "launches": round(len(times) / _CALLS, 2),
            "us": round(sum(times) / _CALLS, 3),
        }
        for (block, name), times in found.items()
    ]
    blocks = list(dict.fromkeys(block for block, _ in found))
    groups = get_args(Group)
    return sorted(rows, key=lambda row: (blocks.index(row["block"]), groups.index(row["group"]), -row["us"]))


def _start(event: Any) -> float:
    return float(event.time_range.start)


class _Marking(fx.Interpreter):
    """Launches a kernel of its own, of a known name, where the next block begins: the order of launches is kept."""

    def __init__(self, program: fx.GraphModule, device: Device) -> None:
        super().__init__(program)
        self._device, self.labels = device, [""][:0]

    def run_node(self, n: fx.Node) -> Any:
        """Mark, and run."""
        label = n.meta.get("custom", {}).get(KEY)
        if n.op == "call_function" and label and self.labels[-1:] != [label]:
            self.labels.append(label)
            if self._device == "cuda":
                torch.cuda._sleep(1)
            else:
                with record_function(_CPU_MARK):
                    pass
        return super().run_node(n)
