"""Memory: the peak of a worker, which reads it itself, and an estimate of what a race needs, before it starts."""

import resource
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from exporter.benchmark.contender import Contender
from exporter.errors import UsageError

PYTORCH_BYTES = 800 * 2**20
"""Resident size of a process that has imported PyTorch and a model library and run one small product."""

ENGINE_BYTES = 150 * 2**20
"""The same for an engine's runtime."""

WEIGHT_COPIES = {"module": 2.0, "compiled": 3.0, "program": 2.0, "engine": 2.0}
"""Copies of the weights held at once while loading: file and module; engines repack, the compiler makes constants."""

_RESET_PEAK = "5"  # what /proc/PID/clear_refs takes to forget VmHWM


@dataclass(frozen=True, kw_only=True)
class Peak:
    """The most memory that a worker held.

    Attributes:
        bytes: resident set on the CPU, allocator's maximum on CUDA.
        since: from when on: `load`, or `start` where the kernel does not let a process forget its high-water mark.
    """

    bytes: int
    since: str


def forget_peak() -> bool:
    """Set this process's high-water mark to what it holds now; whether the kernel did it."""
    try:
        Path("/proc/self/clear_refs").write_text(_RESET_PEAK, encoding="ascii")
    except OSError:
        return False
    return True


def peak_resident(*, forgot: bool) -> Peak:
    """The high-water mark of this process's resident set.

    Args:
        forgot: what `forget_peak` returned after loading.
    """
    if forgot:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return Peak(bytes=int(line.split()[1]) * 1024, since="load")
    return Peak(bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, since="start")


def estimate_bytes(contenders: Iterable[Contender]) -> int:
    """What processes for these contenders hold together, by the sizes of their files.

    A model that its library builds has no file here; the largest file of the others stands for it.
    """
    contenders = list(contenders)
    sizes = {contender.name: _size(contender.file) for contender in contenders if contender.file is not None}
    largest = max(sizes.values(), default=0)
    return sum(
        (ENGINE_BYTES if contender.kind == "engine" else PYTORCH_BYTES)
        + int(WEIGHT_COPIES[contender.kind] * sizes.get(contender.name, largest))
        for contender in contenders
    )


def check_memory(contenders: Iterable[Contender], available: int) -> None:
    """Refuse a race whose processes cannot be there at the same time.

    Raises:
        UsageError: the contenders of one batch size need more than `available` bytes.
    """
    groups: dict[int, list[Contender]] = {}
    for contender in contenders:
        groups.setdefault(contender.batch, []).append(contender)
    for batch, group in groups.items():
        needed = estimate_bytes(group)
        if needed > available:
            raise UsageError(
                f"benchmark: {len(group)} processes at batch {batch} need about {needed / 2**30:.1f} GiB at once, got "
                f"{available / 2**30:.1f} GiB available; race fewer contenders, or free some memory"
            )


def _size(path: Path) -> int:
    """Bytes of an artifact: a file with whatever lies beside it under its name (`model.onnx.data`), or a folder."""
    found = path.rglob("*") if path.is_dir() else path.parent.glob(f"{path.name}*")
    return sum(each.stat().st_size for each in found if each.is_file())
