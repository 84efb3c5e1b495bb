"""Which package versions made a bundle."""

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

from exporter.version import __version__

TOOLCHAIN = ("torch", "timm", "onnx", "onnxscript", "onnxruntime", "numpy")

OF_TARGETS = {"trt": "tensorrt", "torch-trt": "torch-tensorrt", "openvino": "openvino"}
"""What else makes an engine, by target."""


def toolchain(targets: Iterable[str]) -> dict[str, str]:
    """Versions of the packages that decide the bytes of an export for these targets; what is not here has none."""
    engines = [OF_TARGETS[target] for target in targets if target in OF_TARGETS]
    found = {package: _version(package) for package in (*TOOLCHAIN, *engines)}
    return {"exporter": __version__, **{package: text for package, text in found.items() if text}}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
