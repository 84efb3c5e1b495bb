"""Which package versions made a bundle."""

from importlib.metadata import PackageNotFoundError, version

TOOLCHAIN = ("exporter", "torch", "timm", "onnx", "onnxscript", "onnxruntime", "numpy")


def toolchain() -> dict[str, str]:
    """Versions of the packages that decide the bytes of an export."""
    versions = {}
    for package in TOOLCHAIN:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
