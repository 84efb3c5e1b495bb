"""Compile a model for a device, in the precision that the model says.

OpenVINO's default on a processor with bf16 units is to compute programs in fp32 in bf16. Execution mode `ACCURACY`
computes every value in the type that the model gives it, which is what a typed program is for: its products in 16
bits, its matching in fp32.
"""

from typing import Any

from exporter.errors import TargetUnavailableError, UsageError
from exporter.targets.openvino.device import PRECISION_OF, precisions_of, require_device
from exporter.targets.openvino.options import OpenVinoOptions

_CPU = "CPU"


def compile_model(
    core: Any, model: Any, options: OpenVinoOptions, *, threads: int, timed: bool = False
) -> Any:
    """A compiled model; no part of it is cached on disk.

    Args:
        core: of OpenVINO.
        model: read, or made in memory.
        options: device and hints.
        threads: on the CPU, 0 for OpenVINO's choice.
        timed: whether it notes down the time of every node.

    Raises:
        TargetUnavailableError: the device is not here, or does not compute in the model's precision.
    """
    hint = options.precision_hint
    require_device(core, options.device, precisions_of(model) | ({PRECISION_OF[hint]} if hint else set()))
    properties = compile_properties(options, threads=threads)
    if timed:
        properties["PERF_COUNT"] = True
    try:
        return core.compile_model(model, options.device, properties)
    except RuntimeError as error:
        raise TargetUnavailableError(
            f"target openvino: device {options.device} cannot compile the model: {reason(error)}"
        ) from error


def compile_properties(options: OpenVinoOptions, *, threads: int = 0) -> dict[str, Any]:
    """What OpenVINO is told about how to compute; plain values by OpenVINO's names.

    Args:
        options: device and hints.
        threads: on the CPU, 0 for OpenVINO's choice.
    """
    properties: dict[str, Any] = {
        "EXECUTION_MODE_HINT": "ACCURACY",
        "PERFORMANCE_HINT": options.performance_hint.upper(),
        "CACHE_DIR": "",
    }
    if options.precision_hint is not None:
        properties["INFERENCE_PRECISION_HINT"] = options.precision_hint
    if threads and options.device == _CPU:
        properties["INFERENCE_NUM_THREADS"] = threads
    return properties


def check_options(options: OpenVinoOptions) -> None:
    """Raise a UsageError for options that make no sense, whatever devices there are."""
    if options.threads < 0:
        raise UsageError(f"openvino.threads: expected 0 or more, got {options.threads}")
    if options.threads and options.device != _CPU:
        raise UsageError(
            f"openvino.threads: expected 0 with device {options.device}, got {options.threads}; threads are the CPU's"
        )


def reason(error: RuntimeError) -> str:
    """What OpenVINO says last: the lines before it are places in its own source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else "it does not say why"
