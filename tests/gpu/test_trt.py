"""TensorRT on a GPU, where both are: engines are built, proven, inspected, stripped, refused and replayed."""

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from exporter.errors import BundleError, UsageError
from exporter.forms import Precision
from exporter.models import ModelRequest
from exporter.pipeline import build
from exporter.recipe import Recipe
from exporter.rewrite import RewrittenProgram
from exporter.schedule import ScheduleRequest
from exporter.targets import Artifact, Signature, target
from exporter.targets.trt.options import TrtOptions
from exporter.targets.trt.runner import TrtRunner
from exporter.validation import TOLERANCES, run_eager, verify
from tests.support.compiled import captured_family
from tests.support.families import family
from tests.support.tiny_vit import request_of

pytestmark = pytest.mark.skipif(importlib.util.find_spec("tensorrt") is None, reason="needs TensorRT")

REQUEST = request_of(TrtOptions())


def emit(program: RewrittenProgram, folder: Path, **options: object) -> Artifact:
    return target("trt").emit(program, request_of(TrtOptions(**options)), folder)  # type: ignore[arg-type]


def shortfalls(program: RewrittenProgram, artifact: Artifact) -> list[str]:
    references = run_eager(program, {"images": {"images": family("timm_vit").images(2).numpy()}})
    return verify(program, artifact, references, TOLERANCES["fp32"]).shortfalls


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_shipped_model_is_built_and_proven(precision: Precision, tmp_path: Path) -> None:
    recipe = Recipe(
        model=ModelRequest(model="vit_digits"),
        schedule=ScheduleRequest(r=4),
        targets=("trt",),
        precision=precision,
        batch=8,
    )

    bundle = build(recipe, tmp_path / "bundle").bundle

    assert bundle.manifest.parity["trt"].passed
    details = bundle.manifest.artifacts["trt"].details or {}
    print(f"{precision}: {details.get('attention')}")
    sample = bundle.sample("trt")
    got = bundle.runner("trt")(sample["images"])
    assert all(np.abs(got[name] - sample[name]).max() < 0.1 for name in got)


def test_attention_of_the_shipped_model_is_fused_in_16_bits(tmp_path: Path) -> None:
    recipe = Recipe(
        model=ModelRequest(model="vit_digits"),
        schedule=ScheduleRequest(r=4),
        targets=("trt",),
        precision="fp16",
        batch=8,
    )

    details = build(recipe, tmp_path / "bundle").bundle.manifest.artifacts["trt"].details or {}

    assert details["attention_fused"] == details["attention_total"]


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="defaults"),
        pytest.param({"strip_plan": True}, id="stripped"),
        pytest.param({"refit": True}, id="refit"),
        pytest.param({"version_compatible": True}, id="version compatible"),
        pytest.param({"hardware_compatibility": "ampere_plus"}, id="ampere"),
        pytest.param({"hardware_compatibility": "same_compute_capability"}, id="same capability"),
        pytest.param({"cuda_graph": True}, id="graph"),
        pytest.param({"builder_level": 5, "workspace_mb": 1024}, id="level 5"),
    ],
)
def test_engine_is_proven_with_every_option(
    program: RewrittenProgram, options: dict[str, object], tmp_path: Path
) -> None:
    assert shortfalls(program, emit(program, tmp_path, **options)) == []


def test_stripped_engine_is_smaller(program: RewrittenProgram, tmp_path: Path) -> None:
    sizes = []
    for name, strip in (("whole", False), ("stripped", True)):
        (tmp_path / name).mkdir()
        emit(program, tmp_path / name, strip_plan=strip)
        sizes.append((tmp_path / name / "model.engine").stat().st_size)

    assert sizes[1] < sizes[0]


def test_timing_cache_is_written_read_and_refused_when_it_is_none(
    program: RewrittenProgram, tmp_path: Path
) -> None:
    cache = tmp_path / "kernels.cache"
    (tmp_path / "out").mkdir()

    emit(program, tmp_path / "out", timing_cache=str(cache))
    first = cache.read_bytes()
    emit(program, tmp_path / "out", timing_cache=str(cache))

    assert len(cache.read_bytes()) >= len(first) > 0
    cache.write_bytes(b"not a timing cache" * 100)
    with pytest.raises(UsageError, match="trt.timing_cache"):
        emit(program, tmp_path / "out", timing_cache=str(cache))


def test_damaged_engine_is_refused(program: RewrittenProgram, tmp_path: Path) -> None:
    runner = emit(program, tmp_path).runner
    path = tmp_path / "model.engine"
    path.write_bytes(path.read_bytes()[:1000])

    with pytest.raises(BundleError, match=r"model\.engine"):
        runner.load()


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_call_on_the_device_computes_what_the_runner_does(
    program: RewrittenProgram, cuda_graph: bool, tmp_path: Path
) -> None:
    runner = emit(program, tmp_path).runner
    assert isinstance(runner, TrtRunner)
    images = family("timm_vit").images(2).numpy()

    call: Any = runner.enqueue(images, cuda_graph=cuda_graph)
    (logits,) = call()
    torch.cuda.synchronize()

    np.testing.assert_allclose(logits.cpu().numpy(), runner(images)["logits"], atol=1e-5)


def test_progress_is_told_to_the_end(program: RewrittenProgram, tmp_path: Path) -> None:
    heard: list[tuple[int, int]] = []

    def progress(done: int, parts: int) -> None:
        heard.append((done, parts))

    target("trt").emit(program, replace(REQUEST, progress=progress), tmp_path)

    assert heard == sorted(heard)
    assert heard[-1][0] == heard[-1][1]


def test_free_batch_is_served_within_its_profile(tmp_path: Path) -> None:
    open_batch = captured_family("timm_vit").compile(ScheduleRequest(r=4), dynamic_batch=True)
    request = replace(
        REQUEST,
        signature=Signature(
            inputs=(replace(REQUEST.signature.inputs[0], shape=("batch", 3, 24, 24)),),
            outputs=(replace(REQUEST.signature.outputs[0], shape=("batch", 10)),),
        ),
        options=TrtOptions(min_batch=2, opt_batch=4, max_batch=8),
    )
    runner = target("trt").emit(open_batch, request, tmp_path).runner
    images = family("timm_vit").images(11)

    got = runner(images.numpy())["logits"]

    np.testing.assert_allclose(got, open_batch(images)[0].numpy(), atol=1e-4)
