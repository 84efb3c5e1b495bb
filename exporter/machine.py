"""What this machine is and what a process may use of it: processor, cores, memory, GPU. No host names, no paths."""

import os
import platform
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil

_CPU_INFO = Path("/proc/cpuinfo")
_CPU_FOLDER = Path("/sys/devices/system/cpu")
_CGROUPS = (  # limit and use of a container's memory, versions 2 and 1
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)

USED_BY_COMPILERS = re.compile(
    r"avx\w*|sse\w*|ssse3|pni|amx\w*|fma4?|f16c|bmi[12]|abm|adx|aes|vaes|pclmulqdq|vpclmulqdq|gfni|sha_ni|sha512"
    r"|sm3|sm4|movbe|movdiri|movdir64b|popcnt|cx16|lahf_lm|xop|tbm"
)
"""Names in Linux's list of processor features that stand for instructions a compiler may choose."""


def usable_cores() -> frozenset[int]:
    """Numbers of the processor cores that this process may use."""
    return frozenset(os.sched_getaffinity(0))


def physical_core(core: int) -> str:
    """A name for the physical core that a core is a thread of; its own number if the kernel does not say."""
    try:
        return (_CPU_FOLDER / f"cpu{core}/topology/thread_siblings_list").read_text(encoding="ascii").strip()
    except OSError:
        return str(core)


def available_memory_bytes(cgroups: Iterable[tuple[str, str]] = _CGROUPS) -> int:
    """Memory that new processes can have without swapping: of the machine, or of the container if that is less.

    Args:
        cgroups: files with the limit and the use of a container's memory.
    """
    available = int(psutil.virtual_memory().available)
    for limit, use in cgroups:
        with suppress(OSError, ValueError):  # not this version of cgroups, or "max": no limit
            available = min(available, max(0, int(Path(limit).read_text()) - int(Path(use).read_text())))
    return available


def cpu_model() -> str:
    """The processor's name, or the architecture if the kernel does not say."""
    return _cpu_info(_CPU_INFO).get("model name") or platform.machine()


def cpu_instructions(cpu_info: Path = _CPU_INFO) -> frozenset[str]:
    """The instruction sets of the processor, by Linux's names; empty if it does not say."""
    features = _cpu_info(cpu_info)
    if "Features" in features:  # aarch64: every one of them is an instruction set
        return frozenset(features["Features"].split())
    return frozenset(name for name in features.get("flags", "").split() if USED_BY_COMPILERS.fullmatch(name))


def governor() -> str | None:
    """How the kernel sets the processor's clock; None if it does not say, as in most virtual machines."""
    try:
        return (_CPU_FOLDER / "cpu0/cpufreq/scaling_governor").read_text(encoding="ascii").strip()
    except OSError:
        return None


def operating_system() -> str:
    """Name and major version."""
    return f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}"


def cuda_facts() -> dict[str, str | int | float]:
    """Of the current CUDA device: name, memory, and if the driver says, the SM clock in MHz and the power in watts."""
    import torch

    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    facts: dict[str, str | int | float] = {
        "name": properties.name,
        "memory_bytes": properties.total_memory,
        "cuda": str(torch.version.cuda),
    }
    try:
        facts["sm_clock_mhz"] = torch.cuda.clock_rate()
        facts["power_w"] = torch.cuda.power_draw() / 1000
    except Exception as error:  # NVML's bindings are optional, and have errors of their own
        facts["clocks_and_power"] = f"not readable: {' '.join(str(error).split())[:120]}"
    return facts


def _cpu_info(path: Path) -> dict[str, str]:
    """The last processor of the kernel's list, by field; empty if there is no list."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    fields = (line.partition(":") for line in lines)
    return {name.strip(): value.strip() for name, _, value in fields if value.strip()}
