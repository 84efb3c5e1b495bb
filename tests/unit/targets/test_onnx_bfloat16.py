"""bfloat16 on the CPU: the roundings of PyTorch's own bfloat16, bit by bit, where nothing sums in another order."""

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from onnx import TensorProto, defs
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoKernel
from torch import Tensor
from torch.nn import functional

from exporter.errors import BundleError, InternalError
from exporter.targets import Signature, TensorSpec
from exporter.targets.onnx.options import OnnxOptions
from exporter.targets.onnx.probe import probe
from exporter.targets.onnx.providers import PROVIDERS
from exporter.targets.onnx.runner import OnnxRunner
from exporter.targets.onnx.save import save_apart
from exporter.targets.onnx.widen_bfloat16 import holds_bfloat16, widen_bfloat16
from tests.support.hand_made_onnx import node, one_in_one_out

OPSET = 22
TOKENS, CHANNELS = 6, 16


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


WEIGHTS = {
    "up": normal(CHANNELS, 4 * CHANNELS, seed=1).bfloat16(),
    "bias": normal(4 * CHANNELS, seed=2).bfloat16(),
    "down": normal(4 * CHANNELS, CHANNELS, seed=3).bfloat16(),
    "query": normal(CHANNELS, CHANNELS, seed=4).bfloat16(),
    "key": normal(CHANNELS, CHANNELS, seed=5).bfloat16(),
    "quarter": torch.tensor(0.25).bfloat16(),
}
NODES = [
    node("Cast", "x", "narrow", to=TensorProto.BFLOAT16),
    node("MatMul", "narrow up", "hidden"),
    node("Add", "hidden bias", "biased"),
    node("Gelu", "biased", "active"),
    node("MatMul", "active down", "mlp"),
    node("MatMul", "mlp query", "q"),
    node("MatMul", "mlp key", "k"),
    node("Mul", "q quarter", "scaled"),
    node("Transpose", "k", "k_t", perm=[0, 2, 1]),
    node("MatMul", "scaled k_t", "logits"),
    node("Softmax", "logits", "shares"),
    node("MatMul", "shares mlp", "mixed"),
    node("Cast", "mixed", "y", to=TensorProto.FLOAT),
]
SHAPES = {"x": [2, TOKENS, CHANNELS], "y": [2, TOKENS, CHANNELS]}


def eager(images: Tensor, dtype: torch.dtype) -> Tensor:
    """The same in PyTorch."""
    weight = {name: tensor.to(dtype) for name, tensor in WEIGHTS.items()}
    hidden = functional.gelu(images.to(dtype) @ weight["up"] + weight["bias"])
    mlp = hidden @ weight["down"]
    logits = (mlp @ weight["query"] * weight["quarter"]) @ (mlp @ weight["key"]).transpose(1, 2)
    return (torch.softmax(logits, dim=-1) @ mlp).float()


def runner(model: onnx.ModelProto, folder: Path, **options: Any) -> OnnxRunner:
    onnx.save(model, str(folder / "model.onnx"))
    given, made = (TensorSpec(name=name, dtype="float32", shape=tuple(SHAPES[name])) for name in SHAPES)
    return OnnxRunner(
        path=folder / "model.onnx",
        signature=Signature(inputs=(given,), outputs=(made,)),
        options=OnnxOptions(**options),
        threads=1,
    )


@pytest.fixture
def model() -> onnx.ModelProto:
    return one_in_one_out(NODES, SHAPES, WEIGHTS, OPSET)


def steps_apart(one: Tensor, other: Tensor) -> Tensor:
    """Return how many bfloat16 numbers lie between, for numbers of one sign."""
    return (one.bfloat16().view(torch.int16).int() - other.bfloat16().view(torch.int16).int()).abs()


def test_every_result_is_rounded_as_pytorch_rounds_it(model: onnx.ModelProto, tmp_path: Path) -> None:
    images = normal(*SHAPES["x"], seed=6)
    expected = eager(images, torch.bfloat16)

    got = torch.from_numpy(runner(model, tmp_path)(images.numpy())["y"])

    assert int(steps_apart(got, expected).max()) <= 1  # sums in fp32 may be in another order
    assert float((got == expected).float().mean()) > 0.95
    assert float((eager(images, torch.float32) == expected).float().mean()) < 0.05


def test_probe_and_copies_of_the_runner_compute_the_same(model: onnx.ModelProto, tmp_path: Path) -> None:
    images = normal(*SHAPES["x"], seed=6).numpy()
    shipped = runner(model, tmp_path)
    before = ir.from_proto(model)

    probed = probe(before, OnnxOptions())({"x": images})
    copied = pickle.loads(pickle.dumps(shipped))(images)

    np.testing.assert_array_equal(probed["y"], shipped(images)["y"])
    np.testing.assert_array_equal(copied["y"], shipped(images)["y"])
    assert holds_bfloat16(before)  # the model itself is shipped as it is


def test_nothing_is_left_in_bfloat16_but_pairs_of_casts(model: onnx.ModelProto) -> None:
    widened = ir.from_proto(model)
    widen_bfloat16(widened)
    proto = ir.to_proto(widened)
    onnx.checker.check_model(proto, full_check=True)

    narrow = [
        value for each in widened.graph for value in each.outputs if value.dtype == ir.DataType.BFLOAT16
    ]
    (users,) = {tuple(user.op_type for user in value.consumers()) for value in narrow}
    rounding = [str(each.producer().inputs[0].name) for each in narrow]  # type: ignore[union-attr]

    assert users == ("Cast",)
    assert rounding == [made.output[0] for made in NODES if made.op_type != "Transpose"][:-1]
    assert all(value.dtype == ir.DataType.FLOAT for value in widened.graph.initializers.values())


def test_small_weights_beside_the_model_are_read_before_it_is_widened(tmp_path: Path) -> None:
    weights = {"query": WEIGHTS["query"], "shift": normal(TOKENS, CHANNELS, seed=7)}
    nodes = [
        NODES[0],
        node("MatMul", "narrow query", "q"),
        node("Cast", "q", "wide", to=TensorProto.FLOAT),
        node("Add", "wide shift", "y"),
    ]
    model, images = one_in_one_out(nodes, SHAPES, weights, OPSET), normal(*SHAPES["x"], seed=6).numpy()
    whole = runner(model, tmp_path)
    apart = replace(whole, path=tmp_path / "apart" / "model.onnx")
    apart.path.parent.mkdir()
    save_apart(ir.from_proto(model), apart.path)

    assert apart.path.with_name("model.onnx.data").stat().st_size > 0
    np.testing.assert_array_equal(apart(images)["y"], whole(images)["y"])


def test_models_without_bfloat16_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporter.targets.onnx.widen_bfloat16.widen_bfloat16", pytest.fail)
    plain = one_in_one_out([node("Add", "x x", "y")], SHAPES, {})
    images = normal(*SHAPES["x"], seed=6).numpy()

    assert not holds_bfloat16(ir.from_proto(plain))
    np.testing.assert_array_equal(runner(plain, tmp_path)(images)["y"], 2 * images)


@pytest.mark.parametrize(
    ("provider", "holds"), [("cuda", True), ("cpu", False)], ids=["another provider", "another type"]
)
def test_a_missing_kernel_elsewhere_is_an_error(
    provider: str, holds: bool, model: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_kernel(*given: Any, **named: Any) -> Any:
        raise NoKernel("Could not find an implementation for MatMul")

    monkeypatch.setattr(onnxruntime, "InferenceSession", no_kernel)
    monkeypatch.setitem(PROVIDERS, "cuda", "AzureExecutionProvider")
    asked = model if holds else one_in_one_out([node("Add", "x x", "y")], SHAPES, {})

    with pytest.raises(BundleError, match="Could not find an implementation"):
        runner(asked, tmp_path, provider=provider).load()


def test_bfloat16_at_the_boundary_is_nothing_that_we_emit() -> None:
    value = ir.val("x", dtype=ir.DataType.BFLOAT16, shape=ir.Shape([1]))
    graph = ir.Graph([value], [value], nodes=[], opset_imports={"": OPSET})

    with pytest.raises(InternalError, match="expected fp32"):
        widen_bfloat16(ir.Model(graph, ir_version=10))


def test_opset_22_is_the_first_with_convolution_in_bfloat16() -> None:
    first = {
        kind: min(
            schema.since_version
            for schema in defs.get_all_schemas_with_history()
            if (schema.domain, schema.name) == ("", kind)
            and all("tensor(bfloat16)" in each.allowed_type_strs for each in schema.type_constraints[:1])
        )
        for kind in (
            "Conv",
            "MatMul",
            "Gemm",
            "Add",
            "Gelu",
            "LayerNormalization",
            "Softmax",
            "Sigmoid",
            "Concat",
        )
    }

    assert first.pop("Conv") == 22
    assert max(first.values()) <= 20
