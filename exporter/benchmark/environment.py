"""Where a benchmark ran, as far as it matters to its figures: no machine names, no paths.

In: a `Race`. Out: the `environment` of `bench.json`.
"""

import platform
from typing import Any

import psutil

from exporter.benchmark.measurement import Race
from exporter.machine import cpu_model, governor, operating_system
from exporter.packages import installed


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
        "os": operating_system(),
        "python": platform.python_version(),
        "packages": installed(),
        "device": race.device,
        "device_facts": {label: dict(facts) for label, facts in race.device_facts.items()},
    }
