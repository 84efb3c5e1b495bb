"""Which GPUs an engine is built for, and whether the one that is here is among them.

The capabilities are those of the support matrix of TensorRT for RTX 1.7, without those of the data centre (8.0, 9.0,
10.x). https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/getting-started/support-matrix.html
"""

from typing import Any

from exporter.targets.trt.device import Device
from exporter.targets.trt_rtx.options import HardwareCompatibility, RtxOptions

_CAPABILITIES: dict[HardwareCompatibility, tuple[str, ...]] = {
    "ampere_plus": ("8.6", "8.9", "12.x"),
    "turing": ("7.5",),
    "ampere": ("8.6",),
    "ada": ("8.9",),
    "blackwell": ("12.x",),
}

_COMPILED_FOR: dict[HardwareCompatibility, tuple[str, ...]] = {
    "turing": ("SM75",),
    "ampere": ("SM86",),
    "ada": ("SM89",),
    "blackwell": ("SM120", "SM121"),
}
"""Values of the library's `ComputeCapability`; without any it builds for Ampere and newer."""


def capabilities(level: HardwareCompatibility) -> str:
    """The compute capabilities of a level, for people."""
    return ", ".join(_CAPABILITIES[level])


def built_for(level: HardwareCompatibility) -> Device:
    """The GPUs of a level in the place of one: what an engine is built for where no GPU has to be."""
    return Device(name=f"GPUs of compute capability {capabilities(level)}", capability=(0, 0))


def obstacle(device: Device | None, level: HardwareCompatibility) -> str:
    """Why an engine of that level does not run on the GPU that is here; empty if it does."""
    if device is None:
        return f"no GPU that torch can use, expected compute capability {capabilities(level)}"
    kinds = (device.capability_text, f"{device.capability[0]}.x")
    if not set(kinds).isdisjoint(_CAPABILITIES[level]):
        return ""
    return f"{device.name} has compute capability {device.capability_text}, expected {capabilities(level)}"


def configure(trt: Any, config: Any, options: RtxOptions) -> None:
    """Apply the options to a builder's configuration."""
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if not options.tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    wanted = _COMPILED_FOR.get(options.hardware_compatibility)
    if wanted is not None:
        config.num_compute_capabilities = len(wanted)
        for place, name in enumerate(wanted):
            config.set_compute_capability(getattr(trt.ComputeCapability, name), place)
