"""Which package versions made a bundle."""

from importlib.metadata import version

from exporter.version import __version__

TOOLCHAIN = ("torch", "timm", "onnx", "onnxscript", "onnxruntime", "numpy")


def toolchain() -> dict[str, str]:
    """Versions of the packages that decide the bytes of an export."""
    versions = {"exporter": __version__}
    for package in TOOLCHAIN:
        versions[package] = version(package)
    return versions
