"""AOTInductor on a GPU: parity with the eager program, and calls on data that lies there already."""

import numpy as np
import pytest
import torch

from exporter.rewrite import RewrittenProgram
from exporter.targets.aoti.options import AotiOptions
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

    results = artifact.runner.enqueue(images, cuda_graph=cuda_graph)()
    torch.cuda.synchronize()

    assert isinstance(results, list)
    np.testing.assert_allclose(results[0].cpu().numpy(), artifact.runner(images)["logits"], atol=1e-6)


def test_package_names_the_gpu_that_it_is_for(artifact: Artifact) -> None:
    major, minor = torch.cuda.get_device_capability()

    assert artifact.built_from["compute_capability"] == f"{major}{minor}"
