"""ONNX Runtime's CUDA and TensorRT providers on a GPU: parity with PyTorch, calls on the device, attention kernels."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from exporter.schedule import ScheduleRequest
from exporter.targets import Artifact, target
from exporter.targets.onnx.options import OnnxOptions
from exporter.targets.onnx.providers import PROVIDERS
from exporter.targets.onnx.runner import OnnxRunner
from tests.support.compiled import captured_family
from tests.support.families import family
from tests.support.tiny_vit import request_of

TOLERANCE = 1e-3
"""fp32 on a GPU sums in other orders, without TF32."""


def provider(name: str) -> Any:
    """Skip where this build of ONNX Runtime, or this machine, has not got the provider."""
    lacking = PROVIDERS[name] not in onnxruntime.get_available_providers()
    return pytest.param(
        name,
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(lacking, reason=f"ONNX Runtime without {PROVIDERS[name]}"),
            pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
        ],
    )


def emit(name: Any, folder: Path, request: ScheduleRequest | None = None) -> tuple[Artifact, Any, Any]:
    """Return an artifact, images, and what eager PyTorch makes of them."""
    program = captured_family("timm_vit").compile(request or ScheduleRequest(r=4))
    asked = request_of(OnnxOptions(provider=name))
    images = family("timm_vit").images()
    return target("onnx").emit(program, asked, folder), images.numpy(), program(images)


@pytest.mark.parametrize("name", [provider("cuda"), provider("tensorrt")])
def test_outputs_and_matches_are_those_of_pytorch(name: str, tmp_path: Path) -> None:
    artifact, images, (logits, *matches) = emit(name, tmp_path)
    assert artifact.probe is not None

    probed = artifact.probe({"images": images})

    np.testing.assert_allclose(artifact.runner(images)["logits"], logits.numpy(), atol=TOLERANCE)
    for index, match in enumerate(matches):
        np.testing.assert_array_equal(probed[f"match_{index}"], match.numpy())


@pytest.mark.parametrize("cuda_graph", [False, True])
@pytest.mark.parametrize("name", [provider("cuda"), provider("tensorrt")])
def test_a_call_on_the_device_gives_the_same_on_any_stream(
    name: str, cuda_graph: bool, tmp_path: Path
) -> None:
    artifact, images, _ = emit(name, tmp_path)
    assert isinstance(artifact.runner, OnnxRunner)
    call: Any = artifact.runner.enqueue(images, cuda_graph=cuda_graph)
    expected = artifact.runner(images)["logits"]

    for stream in (torch.cuda.default_stream(), torch.cuda.Stream()):
        with torch.cuda.stream(stream):
            (logits,) = call()
            copied = logits.clone()
        stream.synchronize()
        np.testing.assert_allclose(copied.cpu().numpy(), expected, atol=TOLERANCE)


@pytest.mark.parametrize("name", [provider("cuda")])
def test_attention_that_is_spelled_as_products_has_no_kernel_of_its_own(name: str, tmp_path: Path) -> None:
    artifact, images, _ = emit(name, tmp_path)
    assert isinstance(artifact.runner, OnnxRunner)

    kernels = artifact.runner.attention_kernels(images)
    assert len(kernels) == 4 and set(kernels.values()) == {"products on CUDAExecutionProvider"}
    assert artifact.details["attention"] == {"products on CUDAExecutionProvider": 4}


@pytest.mark.parametrize("cuda_graph", [False, True])
@pytest.mark.parametrize("name", [provider("cuda")])
def test_large_call_reads_its_own_memory_after_others_were_freed(
    name: Any, cuda_graph: bool, tmp_path: Path
) -> None:
    """A large input is a block of its own, which PyTorch unmaps as soon as nothing holds it."""
    batch = 4096
    program = captured_family("timm_vit").compile(ScheduleRequest(r=4), precision="fp16", batch=batch)
    asked = request_of(OnnxOptions(provider=name), batch=batch, precision="fp16")
    artifact = target("onnx").emit(program, asked, tmp_path)
    assert isinstance(artifact.runner, OnnxRunner)
    images = np.resize(family("timm_vit").images(2).numpy(), (batch, 3, 24, 24))
    call: Any = artifact.runner.enqueue(images, cuda_graph=cuda_graph)
    first = call()[0].clone()

    torch.cuda.empty_cache()
    filler = torch.full((64, 2**20), torch.nan, device="cuda")
    again = call()[0].clone()
    torch.cuda.synchronize()

    assert filler.isnan().all()
    assert torch.equal(first, again) and first.isfinite().all()
