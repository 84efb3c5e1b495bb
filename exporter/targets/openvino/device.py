"""What OpenVINO's devices can do here: which there are, and in which precisions they compute.

A device that lacks a type computes in fp32 instead, and does not say so; here it is an error.
"""

from collections.abc import Iterable
from typing import Any

from exporter.errors import TargetUnavailableError
from exporter.targets.openvino.library import shared_core

CAPABILITIES = {"fp32": "FP32", "bf16": "BF16", "fp16": "FP16", "int8": "INT8"}
"""What OpenVINO calls the precisions where it lists what a device is capable of."""

PRECISION_OF = {"f32": "fp32", "bf16": "bf16", "f16": "fp16"}
"""Precisions by OpenVINO's names for types."""

_PRODUCTS = frozenset({"MatMul", "Convolution", "GroupConvolution"})


def devices() -> dict[str, tuple[str, tuple[str, ...]]]:
    """By device: what it is, and the precisions that it computes in."""
    core = shared_core()
    return {
        name: (str(core.get_property(name, "FULL_DEVICE_NAME")), _precisions(core, name))
        for name in core.available_devices
    }


def require_device(core: Any, device: str, precisions: Iterable[str]) -> None:
    """Raise unless the device is here and computes in all of these precisions.

    Raises:
        TargetUnavailableError: saying which devices and precisions there are.
    """
    available = list(core.available_devices)
    if device not in available:
        raise TargetUnavailableError(
            f"target openvino: device: expected one of {', '.join(available)}, which OpenVINO finds here, got {device}"
        )
    there = _precisions(core, device)
    for precision in precisions:
        if precision not in there:
            name = core.get_property(device, "FULL_DEVICE_NAME")
            raise TargetUnavailableError(
                f"target openvino: precision: {device} ({name}) computes in {' and '.join(there)}, got {precision}, "
                "for which OpenVINO would take fp32 without a word; choose another precision or device"
            )


def precisions_of(model: Any) -> set[str]:
    """In what a model computes its products, where that is a type that devices may lack."""
    types = {
        node.get_output_element_type(0).to_string()
        for node in model.get_ops()
        if node.get_type_name() in _PRODUCTS
    }
    return {PRECISION_OF[name] for name in types if name in PRECISION_OF}


def _precisions(core: Any, device: str) -> tuple[str, ...]:
    capable = core.get_property(device, "OPTIMIZATION_CAPABILITIES")
    return tuple(precision for precision, capability in CAPABILITIES.items() if capability in capable)
