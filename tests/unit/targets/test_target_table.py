"""Which targets there are, what each one says about itself, and what asking for another one says."""

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import get_args

import pytest

from exporter.errors import TargetUnavailableError, UsageError
from exporter.forms import Forms, Precision
from exporter.targets import TARGETS, TensorSpec, find_target, open_runner, target
from exporter.targets.onnx.options import OnnxOptions
from exporter.targets.onnx.runner import OnnxRunner

SPEC = TensorSpec(name="images", dtype="float32", shape=(1, 2))


def test_onnx_is_there() -> None:
    assert target("onnx").name == "onnx"


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_says_what_it_can_be_asked_for(name: str) -> None:
    found = find_target(name)

    assert found.name == name
    assert is_dataclass(found.options) and found.options() == found.options()
    assert isinstance(found.forms, Forms)
    assert found.precisions and set(found.precisions) <= set(get_args(Precision))


@pytest.mark.parametrize("name", TARGETS)
def test_every_option_is_documented(name: str) -> None:
    options = find_target(name).options

    assert [field.name for field in fields(options) if f"{field.name}: " not in (options.__doc__ or "")] == []


@pytest.mark.parametrize("name", ["onxn", "ONNX", "", "../onnx", "target"])
def test_unknown_targets_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="expected one of onnx"):
        target(name)
    with pytest.raises(UsageError, match="expected one of onnx"):
        open_runner(name, Path("model"), input=SPEC, outputs=(SPEC,))


def test_precision_that_a_target_cannot_compute_in_is_not_available() -> None:
    with pytest.raises(TargetUnavailableError, match="expected precision fp32 or fp16.*got fp8"):
        target("onnx", "fp8")


def test_a_runner_without_options_has_the_defaults() -> None:
    runner = open_runner("onnx", Path("model.onnx"), input=SPEC, outputs=(SPEC,))
    asked = open_runner(
        "onnx", Path("model.onnx"), input=SPEC, outputs=(SPEC,), options=OnnxOptions(provider="cuda")
    )

    assert isinstance(runner, OnnxRunner) and isinstance(asked, OnnxRunner)
    assert (runner.options, runner.device) == (OnnxOptions(), "cpu")
    assert (asked.options.provider, asked.device) == ("cuda", "cuda")
