"""Which layers are fused attention, read out of the inspector's JSON as TensorRT's users have posted it."""

import json

import pytest

from exporter.targets.trt.inspect import Inspection, Layer, count_attention, read_layers


def layer(name: str, tactic: str = "", kind: str = "kgen", nodes: tuple[str, ...] = ()) -> Layer:
    return Layer(name=name, kind=kind, tactic=tactic, nodes=nodes)


@pytest.mark.parametrize(
    ("name", "tactic", "kind"),
    [
        pytest.param("_gemm_mha_v2_myl0_17", "_gemm_mha_v2_0x957a2fe283f77dcf", "kgen", id="generated"),
        pytest.param("__mye8037_gemm_mha_v2", "", "", id="name only"),
        pytest.param(
            "{ForeignNode[a...b]}", "fmha_v2_flash_attention_fp16_S_64_sm90", "gemm", id="precompiled"
        ),
        pytest.param("block_00", "", "kgen_mha", id="kind"),
        pytest.param("_gemv_mha_v1", "", "kgen", id="vector"),
    ],
)
def test_fused_attention_is_recognised(name: str, tactic: str, kind: str) -> None:
    assert layer(name, tactic, kind).is_fused_attention


@pytest.mark.parametrize(
    ("name", "tactic", "kind"),
    [
        pytest.param("block_00/MatMul_3", "sm80_xmma_gemm_f16f16_f16f16_f16_nn_n", "gemm", id="gemm"),
        pytest.param("__mye6690__new_fc___mye6688_alpha", "", "constant", id="alpha"),
        pytest.param("__myl_MaxSubExpSumDivMul_myl0_9", "__myl_MaxSubExpSum", "kgen", id="softmax alone"),
        pytest.param("hammahat", "", "", id="inside a word"),
    ],
)
def test_other_layers_are_not(name: str, tactic: str, kind: str) -> None:
    assert not layer(name, tactic, kind).is_fused_attention


def test_layers_are_read_with_their_onnx_nodes() -> None:
    text = json.dumps(
        {
            "Layers": [
                {
                    "Name": "_gemm_mha_v2_myl0_17",
                    "LayerType": "kgen",
                    "TacticName": "_gemm_mha_v2_0x957a",
                    "Metadata": "[ONNX Layer: block_00/MatMul_1][ONNX Layer: block_00/Softmax_2]",
                },
                "Reformatting CopyNode for Input Tensor 0",
            ],
            "Bindings": ["images"],
        }
    )

    mha, name_only = read_layers(text)

    assert mha == layer(
        "_gemm_mha_v2_myl0_17", "_gemm_mha_v2_0x957a", nodes=("block_00/MatMul_1", "block_00/Softmax_2")
    )
    assert name_only == layer("Reformatting CopyNode for Input Tensor 0", kind="")


def test_engine_without_information_has_no_layers() -> None:
    assert list(read_layers("")) == []


@pytest.mark.parametrize(
    ("layers", "attention", "fused"),
    [
        pytest.param([layer("_gemm_mha_v2_1"), layer("_gemm_mha_v2_2"), layer("gemm")], 12, 2, id="unnamed"),
        pytest.param(
            [layer("mha", nodes=("block_00/Softmax_1", "block_01/Softmax_2"))], 12, 2, id="two in one layer"
        ),
        pytest.param(
            [layer("a_mha", nodes=("block_00/Softmax_1",)), layer("b_mha", nodes=("block_00/Softmax_1",))],
            12,
            1,
            id="one in two layers",
        ),
        pytest.param([layer("gemm", nodes=("block_00/Softmax_1",))], 12, 0, id="softmax elsewhere"),
        pytest.param([layer("_mha")] * 5, 4, 4, id="never more than there are"),
    ],
)
def test_fused_attentions_are_counted(layers: list[Layer], attention: int, fused: int) -> None:
    inspection = Inspection(layers=tuple(layers), attention=attention)

    assert inspection.fused == fused
    assert inspection.summary == f"attention fused {fused}/{attention}"


def test_kinds_are_counted() -> None:
    layers = (layer("a", kind="gemm"), layer("b"), layer("c"))

    assert list(Inspection(layers=layers, attention=0).kinds().items()) == [("kgen", 2), ("gemm", 1)]


def test_attention_is_counted_by_operator() -> None:
    assert count_attention(["MatMul", "Softmax", "MatMul", "Attention", "LogSoftmax"]) == 2
