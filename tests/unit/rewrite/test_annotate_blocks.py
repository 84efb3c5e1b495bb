"""Every node knows its block, in the captured graph and in the names of the emitted model."""

from collections import Counter

import pytest
import torch

from exporter.rewrite.annotate_blocks import annotations
from exporter.schedule import ScheduleRequest
from exporter.targets import EmitRequest, Signature, TensorSpec
from exporter.targets.onnx.build import build
from exporter.targets.onnx.options import OnnxOptions
from tests.support.compiled import REQUESTS, captured_family
from tests.support.families import IMAGE_SIZE

FAMILIES = ["timm_vit", "torchvision_vit", "open_clip_vit", "hf_clip", "hf_dinov2_registers", "timm_siglip"]
BLOCKS = ["block_00", "block_01", "block_02", "block_03"]
GELU = torch.ops.aten.gelu.default
SIGMOID = torch.ops.aten.sigmoid.default
LINEAR = torch.ops.aten.linear.default
ATTENTION = torch.ops.aten.scaled_dot_product_attention.default


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("request_", [pytest.param(ScheduleRequest(r=0), id="dense"), REQUESTS["constant"]])
def test_every_block_holds_one_attention_and_its_mlp(name: str, request_: ScheduleRequest) -> None:
    program = captured_family(name).compile(request_)
    graph = program.exported.graph
    label = annotations(graph)
    found = {
        block: Counter(node.target for node in graph.nodes if label.get(node.name) == block)
        for block in BLOCKS
    }

    assert [found[block][ATTENTION] for block in BLOCKS] == [1, 1, 1, 1]
    assert [found[block][GELU] or found[block][SIGMOID] for block in BLOCKS] == [1, 1, 1, 1]
    assert all(found[block][LINEAR] >= 4 for block in BLOCKS[:3])


def test_labels_follow_each_other_in_graph_order() -> None:
    graph = captured_family("timm_vit").compile(REQUESTS["constant"]).exported.graph
    label = annotations(graph)

    in_order = list(
        dict.fromkeys(
            label[node.name] for node in graph.nodes if node.op == "call_function" and node.name in label
        )
    )

    assert in_order == ["stem", *BLOCKS, "head"]


def test_patches_are_of_the_stem_and_classes_of_the_head() -> None:
    graph = captured_family("timm_vit").compile(REQUESTS["constant"]).exported.graph
    label = annotations(graph)
    (convolution,) = [node for node in graph.nodes if node.target is torch.ops.aten.conv2d.default]
    *_, classifier = [node for node in graph.nodes if node.target is LINEAR]

    assert label[convolution.name] == "stem"
    assert label[classifier.name] == "head"


def test_matches_belong_to_the_block_that_merges() -> None:
    program = captured_family("timm_vit").compile(REQUESTS["constant"])
    label = annotations(program.exported.graph)
    (output,) = [node for node in program.exported.graph.nodes if node.op == "output"]
    records = output.args[0][program.outputs :]

    assert [label[record.name] for record in records] == [BLOCKS[block] for block in program.merging_blocks]


def test_nodes_of_the_onnx_model_are_named_after_their_block() -> None:
    program = captured_family("timm_vit").compile(REQUESTS["constant"])
    shape = (2, 3, IMAGE_SIZE, IMAGE_SIZE)
    model = build(
        program.exported,
        EmitRequest(
            signature=Signature(
                inputs=(TensorSpec(name="images", dtype="float32", shape=shape),),
                outputs=(TensorSpec(name="logits", dtype="float32", shape=(2, 10)),),
            ),
            options=OnnxOptions(),
        ),
    )
    nodes = list(model.graph)
    softmaxes = [str(node.name).split("/")[0] for node in nodes if node.op_type == "Softmax"]

    assert softmaxes == BLOCKS
    assert {str(node.name).split("/")[0] for node in nodes} == {"stem", *BLOCKS, "head"}
    assert len({node.name for node in nodes}) == len(nodes)
