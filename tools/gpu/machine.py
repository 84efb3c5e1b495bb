"""What this machine is, as far as it matters to the figures: no host names, no paths."""

import importlib.util
import platform
import subprocess
from collections.abc import Mapping
from typing import Any

from exporter.errors import TargetUnavailableError
from exporter.machine import cpu_model
from exporter.packages import installed

NEEDED = {
    "numpy": "numpy",
    "PIL": "pillow",
    "psutil": "psutil",
    "safetensors": "safetensors",
    "scipy": "scipy",
    "sklearn": "scikit-learn",
    "timm": "timm",
    "torch": "torch",
    "torchvision": "torchvision",
}
"""Modules without which nothing runs, and the packages that have them. Engines say themselves what they lack."""

_QUERY = (
    "name", "driver_version", "memory.total", "memory.used", "utilization.gpu", "pstate", "clocks.sm",
    "clocks.max.sm", "clocks.mem", "power.draw", "power.limit", "temperature.gpu",
)  # fmt: skip


def check_needed(needed: Mapping[str, str] = NEEDED) -> None:
    """Say in one line what is missing, before anything is started.

    Raises:
        TargetUnavailableError: some of it is.
    """
    missing = [package for module, package in needed.items() if importlib.util.find_spec(module) is None]
    if missing:
        names = " ".join(missing)
        raise TargetUnavailableError(
            f"gpu_check: needs {names}; pip install {names}; or without a network, elsewhere: pip download --no-deps "
            f"-d wheels {names}, and here: pip install --no-index --no-deps wheels/*.whl"
        )


def machine_facts() -> dict[str, Any]:
    """What is known without touching the GPU: processor, Python, packages, and what nvidia-smi says."""
    return {
        "cpu": cpu_model(),
        "os": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "python": platform.python_version(),
        "packages": installed(),
        "nvidia_smi": nvidia_smi(),
    }


def nvidia_smi() -> dict[str, str]:
    """Driver, clocks, power and load of the first GPU; empty where there is no nvidia-smi."""
    command = ("nvidia-smi", f"--query-gpu={','.join(_QUERY)}", "--format=csv,noheader,nounits", "--id=0")
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    values = [value.strip() for value in said.stdout.strip().split(",")]
    return dict(zip(_QUERY, values, strict=True)) if len(values) == len(_QUERY) else {}


def torch_facts(device: str) -> dict[str, Any]:
    """What PyTorch sees; asked of the worker, since it starts CUDA.

    Raises:
        TargetUnavailableError: a GPU is asked for, and PyTorch sees none.
    """
    import torch

    if device == "cpu":
        return {"device": f"cpu: {cpu_model()}", "torch": torch.__version__}
    if not torch.cuda.is_available():
        raise TargetUnavailableError(
            f"gpu_check: needs an NVIDIA GPU, and PyTorch {torch.__version__} sees none here; nothing was run"
        )
    found = torch.cuda.get_device_properties(0)
    return {
        "device": found.name,
        "compute_capability": f"{found.major}.{found.minor}",
        "multiprocessors": found.multi_processor_count,
        "memory_bytes": found.total_memory,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "torch": torch.__version__,
        "tf32": False,
    }
