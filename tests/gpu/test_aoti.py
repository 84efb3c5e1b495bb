"""AOTInductor on a GPU: parity with the eager program, and calls on data that lies there already."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from exporter.rewrite import RewrittenProgram
from exporter.targets.aoti.options import AotiOptions
from exporter.targets.aoti.prepare import SCRIPT, prepare
from exporter.targets.aoti.runner import AotiRunner
from exporter.targets.aoti.target import TARGET
from exporter.targets.target import Artifact
from tests.support.compiled import max_abs_error
from tests.support.families import family
from tests.support.tiny_vit import request_of

TOLERANCE = 1e-3
"""TF32 is off by default; kernels of another summation order differ by less."""


@pytest.fixture(scope="module", params=["kept", "dropped"])
def artifact(
    request: pytest.FixtureRequest, program: RewrittenProgram, tmp_path_factory: pytest.TempPathFactory
) -> Artifact:
    options = AotiOptions(device="cuda", matches=request.param)
    asked = request_of(options)
    return TARGET.emit(program, asked, tmp_path_factory.mktemp("aoti"))


def test_package_and_probe_equal_the_eager_program(program: RewrittenProgram, artifact: Artifact) -> None:
    images = family("timm_vit").images(2)
    expected = program(images)
    assert artifact.probe is not None

    shipped, probed = (
        artifact.runner(images.numpy()),
        list(artifact.probe({"images": images.numpy()}).values()),
    )

    assert max_abs_error(torch.from_numpy(shipped["logits"]), expected[0]) < TOLERANCE
    assert max_abs_error(torch.from_numpy(probed[0]), expected[0]) < TOLERANCE
    assert all(np.array_equal(got, want.numpy()) for got, want in zip(probed[1:], expected[1:], strict=True))


@pytest.mark.parametrize("cuda_graph", [False, True], ids=["launched", "graph"])
def test_call_on_the_device_computes_the_same(artifact: Artifact, cuda_graph: bool) -> None:
    images = family("timm_vit").images(2).numpy()
    assert isinstance(artifact.runner, AotiRunner)

    results = replace(artifact.runner, cuda_graph=False).enqueue(images, cuda_graph=cuda_graph)()
    torch.cuda.synchronize()

    assert isinstance(results, list)
    np.testing.assert_allclose(results[0].cpu().numpy(), artifact.runner(images)["logits"], atol=1e-6)


@pytest.mark.parametrize("cuda_graph", [False, True], ids=["launched", "graph"])
def test_runner_computes_every_batch_of_its_own(
    program: RewrittenProgram, artifact: Artifact, cuda_graph: bool
) -> None:
    images = family("timm_vit").images(6)
    assert isinstance(artifact.runner, AotiRunner)
    runner = replace(artifact.runner, cuda_graph=cuda_graph)
    expected = torch.cat([program(batch)[0] for batch in images.split(2)])

    for given, wanted in ((images, expected), (images.flip(0), expected.flip(0))):
        got = torch.from_numpy(runner(given.numpy())["logits"])
        assert max_abs_error(got, wanted) < TOLERANCE


def test_recording_reads_its_own_memory_after_others_were_freed(artifact: Artifact) -> None:
    images = family("timm_vit").images(2).numpy()
    call: Any = artifact.runner.enqueue(images, cuda_graph=True)
    first = call()[0].clone()

    torch.cuda.empty_cache()
    filler = torch.full((2**20,), torch.nan, device="cuda")
    again = call()[0].clone()
    torch.cuda.synchronize()

    assert filler.isnan().all() and torch.equal(first, again)


def test_prepared_script_compiles_a_package_that_the_runner_opens(
    program: RewrittenProgram, tmp_path: Path
) -> None:
    bundle, images = tmp_path / "bundle", family("timm_vit").images(2)
    bundle.mkdir()
    prepared = prepare(TARGET, program, request_of(AotiOptions(device="cuda")), bundle)
    np.savez(bundle / "sample.npz", images=images.numpy(), logits=program(images)[0].numpy())
    tolerances = {"max_abs_error": TOLERANCE, "mean_abs_error": TOLERANCE, "cosine": 0.9999}
    proof = {prepared.target: {"tolerances": tolerances}}
    (bundle / "parity.json").write_text(json.dumps(proof), encoding="utf-8")

    made = subprocess.run(
        [sys.executable, bundle / SCRIPT, "--out", tmp_path / "engine"], capture_output=True, text=True
    )

    assert made.returncode == 0, made.stderr
    runner = TARGET.open(
        tmp_path / "engine/model_aoti.pt2", prepared.runner.signature, AotiOptions(device="cuda")
    )
    assert max_abs_error(torch.from_numpy(runner(images.numpy())["logits"]), program(images)[0]) < TOLERANCE


def test_package_names_the_gpu_that_it_is_for(artifact: Artifact) -> None:
    major, minor = torch.cuda.get_device_capability()

    assert artifact.built_from["compute_capability"] == f"{major}{minor}"
