"""Which targets there are, what each one says about itself, and what asking for another one says."""

import subprocess
import sys
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import get_args

import pytest

from exporter.errors import TargetUnavailableError, UsageError
from exporter.forms import Forms, Precision
from exporter.lint import Engine
from exporter.targets import TARGETS, Device, Signature, TensorSpec, cards, find_target, open_runner, target
from exporter.targets.onnx.options import OnnxOptions
from exporter.targets.onnx.runner import OnnxRunner

NO_ENGINES = """
import sys
from exporter.targets import cards
print(len(cards()), {"torch", "onnx", "onnxruntime", "openvino", "tensorrt", "tensorrt_rtx_bindings",
    "torch_tensorrt"} & set(sys.modules))
"""
SPEC = TensorSpec(name="images", dtype="float32", shape=(1, 2))


def test_onnx_is_there() -> None:
    assert target("onnx").name == "onnx"


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_says_what_it_can_be_asked_for(name: str) -> None:
    found = find_target(name)

    assert found.name == name
    assert is_dataclass(found.options) and found.options() == found.options()
    assert isinstance(found.default_forms(found.options()), Forms)
    assert set(found.forms) <= set(get_args(Device))
    assert found.lint is None or found.lint in get_args(Engine)
    assert bool(found.extra) <= bool(found.distributions)
    assert found.precisions and set(found.precisions) <= set(get_args(Precision))


@pytest.mark.parametrize(
    ("name", "options", "device"),
    [
        ("onnx", {"provider": "cuda"}, "cuda"),
        ("onnx", {"provider": "tensorrt"}, "cuda"),
        ("onnx", {}, "cpu"),
        ("aoti", {"device": "cuda"}, "cuda"),
        ("openvino", {"device": "GPU.0"}, "cpu"),
        ("trt", {}, "cuda"),
    ],
)
def test_forms_are_chosen_by_the_device_that_the_options_name(
    name: str, options: dict[str, str], device: str
) -> None:
    found = find_target(name)
    by_device = {each: Forms(mask="folded") if each == device else Forms() for each in ("cpu", "cuda")}

    assert replace(found, forms=by_device).default_forms(found.options(**options)) == by_device[device]  # type: ignore[arg-type]


def test_what_is_prepared_elsewhere_is_run_by_another_target() -> None:
    prepared = {card.prepared.name: card.prepared.run_by for card in cards() if card.prepared}

    assert prepared == {"trt-onnx": "onnx", "trt-rtx-onnx": "onnx", "aoti-program": "aoti"}
    assert find_target("trt-onnx") is find_target("onnx")


def test_cards_import_no_engine() -> None:
    said = subprocess.run([sys.executable, "-c", NO_ENGINES], capture_output=True, text=True, check=True)

    assert said.stdout.split(maxsplit=1) == [str(len(TARGETS)), "set()\n"]


@pytest.mark.parametrize("name", TARGETS)
def test_every_option_is_documented(name: str) -> None:
    options = find_target(name).options

    assert [field.name for field in fields(options) if f"{field.name}: " not in (options.__doc__ or "")] == []


@pytest.mark.parametrize("name", ["onxn", "ONNX", "", "../onnx", "target"])
def test_unknown_targets_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="expected one of onnx"):
        target(name)
    with pytest.raises(UsageError, match="expected one of onnx"):
        open_runner(name, Path("model"), signature=Signature(inputs=(SPEC,), outputs=(SPEC,)))


def test_precision_that_a_target_cannot_compute_in_is_not_available() -> None:
    with pytest.raises(TargetUnavailableError, match="expected precision fp32 or fp16.*got fp8"):
        target("onnx", "fp8")


def test_a_runner_without_options_has_the_defaults() -> None:
    runner = open_runner("onnx", Path("model.onnx"), signature=Signature(inputs=(SPEC,), outputs=(SPEC,)))
    asked = open_runner(
        "onnx",
        Path("model.onnx"),
        signature=Signature(inputs=(SPEC,), outputs=(SPEC,)),
        options=OnnxOptions(provider="cuda"),
    )

    assert isinstance(runner, OnnxRunner) and isinstance(asked, OnnxRunner)
    assert (runner.options, runner.device) == (OnnxOptions(), "cpu")
    assert (asked.options.provider, asked.device) == ("cuda", "cuda")


@pytest.mark.parametrize("asked", [{"merge": "kernels"}, {"mask": "kernel"}, {"selection": "kernel"}])
def test_kernels_are_refused_where_they_do_not_run(asked: dict[str, str]) -> None:
    aoti = target("aoti")

    assert aoti.choose_forms(aoti.options(device="cuda"), asked).has_kernels
    with pytest.raises(UsageError, match="run on a GPU on the target aoti .*got target aoti on cpu"):
        aoti.choose_forms(aoti.options(), asked)
