"""What is missing is named, with the line that installs it."""

import sys
from types import ModuleType

import pytest

from exporter.errors import TargetUnavailableError
from exporter.targets.torch_trt import library
from exporter.targets.torch_trt.target import TARGET
from tests.unit.targets.torch_trt.stand_in import StandIn


def test_missing_library_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "NAME", "no_such_library")

    with pytest.raises(TargetUnavailableError, match=r'pip install "exporter\[torch-trt\]"'):
        TARGET.check_available()


def test_missing_gpu_is_named(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "compute_capability", lambda: None)

    with pytest.raises(TargetUnavailableError, match="needs an NVIDIA GPU, and PyTorch .* sees none"):
        TARGET.check_available()


def test_library_that_does_not_load_says_why(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch_tensorrt.dynamo")

    with pytest.raises(TargetUnavailableError, match="does not load .*torch_tensorrt.dynamo"):
        TARGET.check_available()


def test_versions_are_those_that_an_engine_depends_on(
    stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensorrt = ModuleType("tensorrt")
    vars(tensorrt)["__version__"] = "11.1.0"
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt)

    found = library.versions(library.load_library())

    assert found["tensorrt"] == "11.1.0" and found["torch_tensorrt"] == stand_in.version
    assert found["compute_capability"] == "90"
