"""Which package versions made a bundle."""

from collections.abc import Iterable
from importlib.metadata import version

from exporter.version import __version__

TOOLCHAIN = ("torch", "timm", "onnx", "onnxscript", "onnxruntime", "numpy")


OF_TARGETS = {"trt": "tensorrt", "torch-trt": "torch-tensorrt", "openvino": "openvino"}
"""What else makes an engine, by target."""


def toolchain(targets: Iterable[str]) -> dict[str, str]:
    """Versions of the packages that decide the bytes of an export for these targets."""
    engines = [OF_TARGETS[target] for target in targets if target in OF_TARGETS]
    return {"exporter": __version__, **{package: version(package) for package in (*TOOLCHAIN, *engines)}}
