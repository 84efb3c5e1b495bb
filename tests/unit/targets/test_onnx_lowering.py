"""Every spelling of attention and of the stable sort gives what PyTorch gives, run by ONNX Runtime."""

import collections
import logging

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

from exporter.forms import Forms
from exporter.reduction.ranking import order_descending
from exporter.signature import Signature, TensorSpec
from exporter.targets.onnx.build import build
from exporter.targets.onnx.lowering import ATTENTION_OPSET, OPSET, opset
from exporter.targets.target import EmitRequest

BATCH, HEADS, TOKENS, WIDTH = 2, 3, 9, 8
CHANNELS = HEADS * WIDTH
WHOLE = {"op": "Attention", "fused": "MultiHeadAttention"}


def lowered(model: nn.Module, given: Tensor, form: str) -> ir.Model:
    exported = torch.export.export(model.eval().requires_grad_(False), (given,))
    request = EmitRequest(
        signature=Signature(
            inputs=(TensorSpec(name="given", dtype="float32", shape=tuple(given.shape)),),
            outputs=(TensorSpec(name="result", dtype="float32", shape=()),),
        ),
        forms=Forms(attention=form),  # type: ignore[arg-type]
        options=None,
    )
    return build(exported, request)


def run(model: ir.Model, given: Tensor) -> Tensor:
    import onnxruntime

    session = onnxruntime.InferenceSession(
        ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (result,) = session.run(None, {"given": given.numpy()})
    return torch.from_numpy(np.asarray(result))


def operators(model: ir.Model) -> collections.Counter[str]:
    return collections.Counter(node.op_type for node in model.graph)


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


class Projected(nn.Module):
    """Attention and the mean key over heads, on heads made as models make them."""

    def __init__(self, spelling: str, mask: str) -> None:
        super().__init__()
        self.spelling, self.mask = spelling, mask
        self.projection = nn.Linear(CHANNELS, 3 * CHANNELS)

    def heads(self, x_BNC: Tensor) -> tuple[Tensor, ...]:
        rows = self.projection(x_BNC)
        if self.spelling == "three at once":
            return tuple(rows.reshape(*x_BNC.shape[:2], 3, HEADS, WIDTH).permute(2, 0, 3, 1, 4).unbind(0))
        parts = [part.reshape(*x_BNC.shape[:2], HEADS, WIDTH).transpose(1, 2) for part in rows.chunk(3, -1)]
        if self.spelling == "heads in the batch":
            return tuple(part.flatten(0, 1) for part in parts)
        return tuple(part.tanh() for part in parts) if self.spelling == "bounded" else tuple(parts)

    def forward(self, x_BNC: Tensor) -> Tensor:
        q, k, v = self.heads(x_BNC)
        size = x_BNC[..., :1].square() + 1
        bias = size.log().reshape(-1, 1, 1, TOKENS)
        if q.dim() == 3:
            bias = bias.squeeze(1).repeat_interleave(HEADS, dim=0)
        mask = {"bias": bias, "boolean": bias > 0.1, "none": None, "causal": None}[self.mask]
        mixed = nn.functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=self.mask == "causal", scale=0.3
        )
        if q.dim() == 3:
            return mixed
        return mixed.transpose(1, 2).flatten(2)[..., :WIDTH] + k.mean(1)


@pytest.mark.parametrize(
    ("form", "spelling", "mask"),
    [
        pytest.param("decomposed", "three at once", "causal", id="decomposed, causal"),
        pytest.param("decomposed", "separate", "boolean", id="decomposed, boolean mask"),
        pytest.param("op", "three at once", "bias", id="op, fused projection, bias"),
        pytest.param("op", "separate", "boolean", id="op, separate heads, boolean mask"),
        pytest.param("op", "three at once", "causal", id="op, causal"),
        pytest.param("op", "heads in the batch", "bias", id="op, heads in the batch"),
        pytest.param("fused", "three at once", "bias", id="fused, fused projection, bias"),
        pytest.param("fused", "bounded", "none", id="fused, computed heads, no mask"),
        pytest.param("fused", "heads in the batch", "bias", id="fused, heads in the batch"),
    ],
)
def test_attention_is_pytorch_s(form: str, spelling: str, mask: str) -> None:
    model, given = Projected(spelling, mask), random(BATCH, TOKENS, CHANNELS)

    spelled = lowered(model, given, form)

    assert operators(spelled)[WHOLE.get(form, "Softmax")] == 1
    torch.testing.assert_close(run(spelled, given), model(given), atol=1e-5, rtol=0.0)


@pytest.mark.parametrize("spelling", ["three at once", "separate"])
def test_heads_are_not_moved_between_projection_and_whole_attention(spelling: str) -> None:
    spelled = lowered(Projected(spelling, "bias"), random(BATCH, TOKENS, CHANNELS), "op")

    (attention,) = [node for node in spelled.graph if node.op_type == "Attention"]
    makers = [value.producer() for value in attention.inputs[:3] if value]
    assert {maker.op_type for maker in makers if maker} <= {"Slice", "Split"}
    assert not operators(spelled)["Transpose"]


def test_only_the_attention_operator_takes_the_newer_opset() -> None:
    given = random(BATCH, TOKENS, CHANNELS)

    found = {
        form: lowered(Projected("separate", "bias"), given, form) for form in ("decomposed", "op", "fused")
    }

    assert {form: model.opset_imports[""] for form, model in found.items()} == {
        "decomposed": OPSET,
        "op": ATTENTION_OPSET,
        "fused": OPSET,
    }
    assert opset(Forms(attention="op")) == ATTENTION_OPSET
    assert opset(Forms(attention="fused")) == opset(Forms()) == OPSET
    assert "com.microsoft" in found["fused"].opset_imports


class Order(nn.Module):
    """The order of scores."""

    def forward(self, scores: Tensor) -> Tensor:
        return order_descending(scores)


def test_stable_sort_is_one_operator_and_keeps_ties_in_order() -> None:
    scores = torch.randint(0, 4, (BATCH, 300), generator=torch.Generator().manual_seed(0)).float()

    model = lowered(Order(), scores, "decomposed")

    assert operators(model) == {"TopK": 1}
    expected = torch.sort(scores, dim=1, descending=True, stable=True).indices
    assert torch.equal(run(model, scores), expected)


class NormedMaps(nn.Module):
    """Maps of two sizes, normalised by groups, whose translation has sizes that nothing is known of."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        small = nn.functional.group_norm(x_BCHW, 2).sigmoid()
        return nn.functional.group_norm(nn.functional.interpolate(small, scale_factor=2.0), 2).sigmoid()


def test_sizes_that_nothing_is_known_of_have_no_common_name_beside_a_free_batch() -> None:
    given = random(2, 4, 4, 4)
    exported = torch.export.export(
        NormedMaps().eval(), (given,), dynamic_shapes=({0: torch.export.Dim("rows")},)
    )
    signature = Signature(
        inputs=(TensorSpec(name="given", dtype="float32", shape=("batch", 4, 4, 4)),),
        outputs=(TensorSpec(name="result", dtype="float32", shape=()),),
    )

    model = build(exported, EmitRequest(signature=signature, forms=Forms(), options=None))

    sizes = [size for node in model.graph for value in node.outputs for size in value.shape or ()]
    assert {size.value for size in sizes if isinstance(size, ir.SymbolicDim)} == {"batch", None}
    torch.testing.assert_close(run(model, given), NormedMaps()(given), atol=1e-6, rtol=1e-6)


class WithConstantMatch(nn.Module):
    """Its second result, as a match of `grid`, depends on no input."""

    def forward(self, x_BNC: Tensor) -> tuple[Tensor, Tensor]:
        return x_BNC + 1, torch.arange(3).expand(2, -1)


def test_match_that_is_a_constant_is_built_without_a_warning_of_the_library(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = lowered(WithConstantMatch(), random(2, 3, 4), "op")

    assert len(model.graph.outputs) == 2
    assert not [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
