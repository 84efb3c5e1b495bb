"""Torch-TensorRT where it is: coverage, parity with the eager program, CUDA graphs, and what a bundle may load."""

import importlib.util

import numpy as np
import pytest
import torch

from exporter.rewrite import RewrittenProgram
from exporter.targets.target import Artifact
from exporter.targets.torch_trt.options import TorchTrtOptions
from exporter.targets.torch_trt.runner import TorchTrtRunner
from exporter.targets.torch_trt.target import TARGET
from tests.support.compiled import max_abs_error
from tests.support.families import family
from tests.support.tiny_vit import request_of

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("torch_tensorrt") is None,
    reason='needs Torch-TensorRT: pip install "exporter[torch-trt]"',
)

TOLERANCE = 1e-3


@pytest.fixture(scope="module", params=["kept", "dropped"])
def artifact(
    request: pytest.FixtureRequest, program: RewrittenProgram, tmp_path_factory: pytest.TempPathFactory
) -> Artifact:
    options = TorchTrtOptions(matches=request.param, optimization_level=1)
    asked = request_of(options)
    return TARGET.emit(program, asked, tmp_path_factory.mktemp("torch_trt"))


def test_whole_program_is_one_engine(artifact: Artifact) -> None:
    assert artifact.details["engines"] == 1
    assert artifact.details["fallback"] == {}


def test_engine_and_probe_equal_the_eager_program(program: RewrittenProgram, artifact: Artifact) -> None:
    images = family("timm_vit").images(2)
    expected = program(images)
    assert artifact.probe is not None

    shipped, probed = (
        artifact.runner(images.numpy()),
        list(artifact.probe({"images": images.numpy()}).values()),
    )

    assert max_abs_error(torch.from_numpy(shipped["logits"]), expected[0]) < TOLERANCE
    assert all(np.array_equal(got, want.numpy()) for got, want in zip(probed[1:], expected[1:], strict=True))


@pytest.mark.parametrize("cuda_graph", [False, True], ids=["launched", "graph"])
def test_call_on_the_device_computes_the_same(artifact: Artifact, cuda_graph: bool) -> None:
    images = family("timm_vit").images(2).numpy()
    assert isinstance(artifact.runner, TorchTrtRunner)

    results = artifact.runner.enqueue(images, cuda_graph=cuda_graph)()
    torch.cuda.synchronize()

    assert isinstance(results, tuple | list)
    np.testing.assert_allclose(results[0].cpu().numpy(), artifact.runner(images)["logits"], atol=1e-5)
