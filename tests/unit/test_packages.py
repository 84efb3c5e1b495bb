"""One list of packages serves manifests, benchmarks, sweeps and `doctor`."""

import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from exporter.packages import PACKAGES, installed, toolchain
from exporter.targets import TARGETS
from exporter.version import __version__

ROOT = Path(__file__).resolve().parents[2]


def test_toolchain_names_every_library_that_decides_an_onnx_model() -> None:
    found = toolchain(["onnx"])

    assert found["exporter"] == __version__
    for name in ("torch", "torchvision", "timm", "transformers", "diffusers", "open_clip_torch"):
        assert found[name] == version(name)
    for name in ("onnx", "onnx-ir", "onnxscript", "onnxruntime", "numpy"):
        assert found[name] == version(name)


@pytest.mark.parametrize(("targets", "there"), [(["onnx"], False), (["onnx", "openvino"], True)])
def test_engine_library_is_part_of_the_toolchain_of_its_own_target_only(
    targets: list[str], there: bool
) -> None:
    assert ("openvino" in toolchain(targets)) is there
    assert "openvino" in installed()


def test_every_package_is_a_requirement_of_its_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = {None: project["dependencies"], **project["optional-dependencies"]}

    for package in PACKAGES:
        names = {canonicalize_name(Requirement(text).name) for text in required[package.extra]}
        assert canonicalize_name(package.name) in names
        assert package.target is None or package.target in TARGETS
