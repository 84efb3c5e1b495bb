"""TensorRT for RTX on a GPU that it supports: engines are built, verified, run, and verified after the fact."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from exporter.forms import Precision
from exporter.models import ModelRequest
from exporter.pipeline import build, validate
from exporter.recipe import Recipe
from exporter.schedule import ScheduleRequest
from exporter.targets.trt import device
from exporter.targets.trt_rtx.gpus import obstacle
from exporter.targets.trt_rtx.options import RtxOptions

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("tensorrt_rtx_bindings") is None, reason="needs TensorRT for RTX"
    ),
    pytest.mark.skipif(
        obstacle(device.find_device(), "ampere_plus") != "", reason="needs an RTX GPU from Ampere on"
    ),
]


def recipe(precision: Precision = "fp32", **options: object) -> Recipe:
    return Recipe(
        model=ModelRequest(model="vit_digits"),
        schedule=ScheduleRequest(r=4),
        targets=("trt-rtx",),
        precision=precision,
        batch=8,
        engines={"trt-rtx": RtxOptions(**options)},  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
def test_engine_is_built_and_verified(precision: Precision, tmp_path: Path) -> None:
    bundle = build(recipe(precision), tmp_path / "bundle").bundle

    assert bundle.manifest.artifacts.keys() == bundle.manifest.parity.keys() == {"trt-rtx"}
    sample = bundle.sample("trt-rtx")
    got = bundle.runner("trt-rtx")(sample["images"])
    assert all(np.abs(got[name] - sample[name]).max() < 0.5 for name in got)


def test_engine_that_was_built_without_a_gpu_is_verified_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(device, "find_device", lambda: None)
        bundle = build(recipe(), tmp_path / "bundle").bundle
    assert bundle.manifest.parity.keys() == {"trt-rtx-onnx"}

    validated = validate(bundle.path, save=False)

    assert validated.failures == {}
    assert validated.parity["trt-rtx"].passed


def test_graph_of_launches_gives_the_same_numbers(tmp_path: Path) -> None:
    plain = build(recipe(), tmp_path / "plain").bundle
    images = plain.sample("trt-rtx")["images"]
    graph = build(recipe(cuda_graph=True), tmp_path / "graph").bundle

    for name, expected in plain.runner("trt-rtx")(images).items():
        np.testing.assert_allclose(graph.runner("trt-rtx")(images)[name], expected, rtol=1e-4, atol=1e-4)
