"""A model of two matrix products, as an engine and as a saved program."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from exporter.benchmark import EngineFile
from exporter.targets import Signature, TensorSpec
from tests.unit.benchmark.contenders import BATCH, SIZE

Weights = list[npt.NDArray[np.float32]]


@pytest.fixture(scope="session")
def weights() -> Weights:
    random = np.random.default_rng(0)
    return [random.normal(size=(SIZE, SIZE)).astype(np.float32) for _ in range(2)]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("contenders")


@pytest.fixture(scope="session")
def images(folder: Path) -> Path:
    path = folder / "images.npy"
    np.save(path, np.random.default_rng(1).normal(size=(BATCH, SIZE)).astype(np.float32))
    return path


@pytest.fixture(scope="session")
def engine(folder: Path, weights: Weights) -> EngineFile:
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["images", "w0"], ["hidden"]),
            helper.make_node("MatMul", ["hidden", "w1"], ["logits"]),
        ],
        "by_hand",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [BATCH, SIZE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [BATCH, SIZE])],
        [numpy_helper.from_array(array, f"w{place}") for place, array in enumerate(weights)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, str(folder / "model.onnx"))
    shape = (BATCH, SIZE)
    return EngineFile(
        target="onnx",
        path=folder / "model.onnx",
        signature=Signature(
            inputs=(TensorSpec(name="images", dtype="float32", shape=shape),),
            outputs=(TensorSpec(name="logits", dtype="float32", shape=shape),),
        ),
    )


class TwoProducts(torch.nn.Module):
    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self.weights = torch.nn.ParameterList(torch.from_numpy(array) for array in weights)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        product: torch.Tensor = images @ self.weights[0] @ self.weights[1]
        return product


@pytest.fixture(scope="session")
def program(folder: Path, weights: Weights) -> Path:
    module = TwoProducts(weights).requires_grad_(False).eval()
    path = folder / "program.pt2"
    torch.export.save(torch.export.export(module, (torch.zeros(BATCH, SIZE),)), path)
    return path
