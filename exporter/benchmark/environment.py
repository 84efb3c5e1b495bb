"""Where a benchmark ran, as far as it matters to its figures: no machine names, no paths.

In: a `Race`. Out: the `environment` of `bench.json`.
"""

import platform
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from exporter.benchmark.measurement import Race
from exporter.packages import installed

_CPU_INFO = Path("/proc/cpuinfo")
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def environment(race: Race) -> dict[str, Any]:
    """Processor, cores, threads, system, packages and device of a race that ran here just now."""
    return {
        "cpu": cpu_model(),
        "cores": {
            "physical": psutil.cpu_count(logical=False),
            "logical": psutil.cpu_count(),
            "used": list(race.cores),
        },
        "threads": race.threads,
        "memory_bytes": psutil.virtual_memory().total,
        "governor": governor(),
        "os": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "python": platform.python_version(),
        "packages": installed(),
        "device": race.device,
        "device_facts": {label: dict(facts) for label, facts in race.device_facts.items()},
    }


def cpu_model() -> str:
    """The processor's name as the kernel has it, or the architecture."""
    with suppress(OSError):
        for line in _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return value.strip()
    return platform.machine()


def governor() -> str | None:
    """How the kernel sets the clock; None where it does not tell, as in most virtual machines."""
    try:
        return _GOVERNOR.read_text(encoding="ascii").strip()
    except OSError:
        return None
