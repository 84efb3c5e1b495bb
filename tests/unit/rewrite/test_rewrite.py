"""The whole list of passes: what it gives to the targets, what can be switched off, what is refused."""

import dataclasses

import pytest
import torch
from torch import nn

from exporter.anatomy import examine
from exporter.capture import Program, capture, export_graph
from exporter.errors import UnsupportedGraphError, UsageError
from exporter.graph.nodes import calls
from exporter.graph.operators import sdpa
from exporter.reduction import method
from exporter.rewrite import InsertInputNormalization, RewriteOptions, RewrittenProgram, rewrite
from exporter.schedule import ScheduleRequest, plan
from tests.unit.rewrite.small_models import Block, SmallVit, images, seeded

OPTIONS = RewriteOptions(method=method("tome"), batch=2)
BYTES = InsertInputNormalization(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), layout="nchw")


def program(model: nn.Module | None = None) -> Program:
    return capture(seeded(model or SmallVit(Block(), Block(), Block())), images())


def reduced(source: Program, merged: tuple[int, ...], options: RewriteOptions = OPTIONS) -> RewrittenProgram:
    anatomy = examine(source.graph_module)
    return rewrite(source, plan(ScheduleRequest(r_per_layer=merged), anatomy.geometry), options)


@pytest.fixture(scope="module")
def source() -> Program:
    return program()


@pytest.fixture(scope="module")
def merging(source: Program) -> RewrittenProgram:
    """Return the program with two merges and every exact pass."""
    return reduced(source, (4, 0, 3))


def test_reduced_program_returns_the_outputs_then_the_matches_of_blocks_that_merge() -> None:
    result = reduced(program(SmallVit(Block(), Block(), Block(), head="both")), (4, 0, 2))

    outputs = result(images())

    assert result.outputs == 2
    assert result.merging_blocks == (0, 2)
    assert [tuple(value.shape) for value in outputs[2:]] == [(2, 13 + 4 + 4), (2, 11 + 2 + 2)]


def test_merge_whose_tokens_nobody_reads_is_not_executed(source: Program) -> None:
    result = reduced(source, (4, 4, 4))

    assert result.merged == (4, 4, 0)
    assert result.merging_blocks == (0, 1)


def test_merge_whose_tokens_nobody_reads_is_executed_when_dead_tokens_stay(source: Program) -> None:
    options = dataclasses.replace(OPTIONS, disabled=frozenset({"remove_dead_tokens"}))

    result = reduced(source, (4, 4, 4), options)

    assert result.merged == (4, 4, 4)


def test_exported_program_and_eager_module_agree(merging: RewrittenProgram) -> None:
    for exported, eager in zip(merging.exported.module()(images()), merging(images()), strict=True):
        torch.testing.assert_close(exported, eager, atol=1e-6, rtol=0.0)


@pytest.mark.parametrize("projection", ["fused", "separate", "torch"])
def test_every_attention_behind_a_merge_weighs_its_keys_also_where_dead_tokens_were_removed(
    projection: str,
) -> None:
    blocks = [Block(projection) for _ in range(3)]  # type: ignore[arg-type]
    source = program(SmallVit(*blocks))
    keep_dead = dataclasses.replace(OPTIONS, disabled=frozenset({"remove_dead_tokens"}))

    result = reduced(source, (4, 0, 0))

    weighed = [len(node.all_input_nodes) == 4 for node in calls(result.eager.graph, sdpa)]
    assert weighed == [False, True, True]
    expected = reduced(source, (4, 0, 0), keep_dead)(images())[0]
    torch.testing.assert_close(result(images())[0], expected, atol=1e-5, rtol=0.0)


def test_executed_macs_fall_with_merges_and_with_dead_tokens(source: Program) -> None:
    keep_dead = dataclasses.replace(OPTIONS, disabled=frozenset({"remove_dead_tokens"}))

    whole = reduced(source, (0, 0, 0), keep_dead).executed_macs
    anatomy = examine(source.graph_module)

    assert whole == anatomy.workload.macs((17,) * 4)
    assert reduced(source, (0, 0, 0)).executed_macs < whole
    assert reduced(source, (8, 0, 0)).executed_macs < reduced(source, (4, 0, 0)).executed_macs


def test_bytes_in_give_what_normalised_floats_give(source: Program, merging: RewrittenProgram) -> None:
    values = torch.randint(0, 256, (2, 3, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    mean, std = torch.tensor(BYTES.mean).reshape(3, 1, 1), torch.tensor(BYTES.std).reshape(3, 1, 1)

    found = reduced(source, (4, 0, 3), dataclasses.replace(OPTIONS, normalization=BYTES))(values)[0]

    torch.testing.assert_close(found, merging((values / 255 - mean) / std)[0], atol=1e-5, rtol=0.0)


def test_source_program_is_not_written_to(source: Program) -> None:
    before = [node.format_node() for node in source.graph_module.graph.nodes]
    weights = {name: value.clone() for name, value in source.graph_module.state_dict().items()}

    reduced(source, (4, 0, 3), dataclasses.replace(OPTIONS, normalization=BYTES))

    assert [node.format_node() for node in source.graph_module.graph.nodes] == before
    after = source.graph_module.state_dict()
    assert list(after) == list(weights)
    assert all(torch.equal(after[name], value) for name, value in weights.items())


def test_unknown_pass_is_refused_with_the_nearest_name(source: Program) -> None:
    options = dataclasses.replace(OPTIONS, disabled=frozenset({"fold_layer_scales"}))

    with pytest.raises(UsageError, match=r'got fold_layer_scales\. Did you mean "fold_layer_scale"\?$'):
        reduced(source, (0, 0, 0), options)


def fixed_program() -> Program:
    """Return a program saved with batch 2 and nothing else."""
    return capture(export_graph(seeded(SmallVit(Block())), images(2), dynamic_batch=False), images(2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"batch": 1}, r"fixed to batch 2, got batch 1; use --batch 2$", id="another batch"),
        pytest.param(
            {"dynamic_batch": True}, r"fixed to batch 2, got a dynamic batch; use --batch 2$", id="dynamic"
        ),
    ],
)
def test_batch_that_a_fixed_program_cannot_serve_is_refused(changes: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        reduced(fixed_program(), (0,), dataclasses.replace(OPTIONS, **changes))  # type: ignore[arg-type]


def test_fixed_program_serves_its_own_batch() -> None:
    source = fixed_program()

    result = reduced(source, (0,))

    torch.testing.assert_close(result(images())[0], source.graph_module(images())[0], atol=1e-5, rtol=0.0)


def test_unknown_method_option_is_refused(source: Program) -> None:
    with pytest.raises(UsageError, match="method tome: unknown option margin"):
        reduced(source, (4, 0, 0), dataclasses.replace(OPTIONS, method_options={"margin": 0.5}))


def test_model_whose_output_is_its_tokens_is_refused_with_merges_and_served_without() -> None:
    source = program(SmallVit(Block(), Block(), head="tokens"))

    with pytest.raises(UnsupportedGraphError, match=r"has one entry per token.*use --r 0"):
        reduced(source, (4, 0))
    assert reduced(source, (0, 0))(images())[0].shape == (2, 17, 16)
