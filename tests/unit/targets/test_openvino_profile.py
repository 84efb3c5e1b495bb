"""Time by block, from the names and times of nodes."""

import pytest

from exporter.targets.openvino.profile import by_block


def test_time_is_split_by_the_block_in_a_nodes_name() -> None:
    nodes = [
        ("images", 9.0),
        ("stem/conv", 1.0),
        ("block_00/linear_1", 3.0),
        ("block_00/linear_1_f32_bf16_block_01/linear_2", 0.25),
        ("Constant_12_f32_bf16_block_01/linear_2", 0.5),
        ("block_01/linear_2", 4.0),
        ("Multiply_77", 0.125),
        ("head/linear", 2.0),
        ("logits", 0.5),
    ]

    assert by_block(nodes) == pytest.approx({"stem": 1.0, "block_00": 3.25, "block_01": 4.625, "head": 2.5})


def test_nodes_before_the_first_name_belong_to_nobody() -> None:
    assert by_block([("images", 1.0), ("my_block_0", 1.0)]) == {}
