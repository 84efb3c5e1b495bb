"""A deliberately broken pass is found by name, with the block that it broke."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import fx

from exporter.anatomy import examine
from exporter.capture import capture
from exporter.forms import Forms
from exporter.graph import GraphPass, PassOutcome
from exporter.graph.nodes import add_call, calls
from exporter.graph.operators import aten
from exporter.reduction import method
from exporter.reduction.ranking import ranks_descending
from exporter.rewrite import InsertInputNormalization, RewriteOptions, decompose_stable_sort, rewrite
from exporter.rewrite.convert_precision import ConvertPrecision
from exporter.rewrite.fold_layer_scale import FoldLayerScale
from exporter.rewrite.insert_token_merge import InsertTokenMerge
from exporter.schedule import ScheduleRequest, plan
from exporter.validation import TOLERANCES, ParityResult, Suspect, compare, locate_error
from tests.unit.rewrite.small_models import Block, SmallVit, images, seeded

OPTIONS = RewriteOptions(method=method("tome"), batch=2)
BYTES = InsertInputNormalization(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), layout="nhwc")
FAILED = ParityResult(
    comparisons={"photo/logits": compare(images().numpy(), images().numpy() + 1)},
    match_agreement=(1.0, 0.5),
    tolerances=TOLERANCES["fp32"],
)


@pytest.fixture(scope="module")
def suspect() -> Suspect:
    """Return the rewrite of a small ViT of three blocks, of which the first two merge."""
    program = capture(seeded(SmallVit(Block(), Block(), Block())), images())
    schedule = plan(ScheduleRequest(r_per_layer=(4, 3, 0)), examine(program.graph_module).geometry)
    return Suspect(
        program=program, schedule=schedule, options=OPTIONS, reference=rewrite(program, schedule, OPTIONS)
    )


def broken(call: Callable[..., PassOutcome], block: int) -> Callable[..., PassOutcome]:
    """Return a pass's `call` that also negates what the MLP of a block computes."""

    def negate_mlp(self: GraphPass, graph_module: fx.GraphModule) -> PassOutcome:
        outcome = call(self, graph_module)
        gelu = calls(graph_module.graph, aten.gelu.default)[block]
        readers = list(gelu.users)
        with graph_module.graph.inserting_after(gelu):
            wrong = add_call(graph_module.graph, aten.neg.default, gelu)
        for reader in readers:
            reader.replace_input_with(gelu, wrong)
        return outcome

    return negate_mlp


@pytest.mark.parametrize(
    ("graph_pass", "changes", "block"),
    [
        pytest.param(FoldLayerScale, {}, 0, id="before tokens merge"),
        pytest.param(FoldLayerScale, {"precision": "fp16"}, 2, id="before the graph is typed"),
        pytest.param(ConvertPrecision, {"precision": "bf16"}, 0, id="while it is typed"),
        pytest.param(ConvertPrecision, {"precision": "bf16"}, 2, id="while it is typed, in the last block"),
    ],
)
def test_broken_pass_and_block_are_named(
    graph_pass: type[GraphPass],
    changes: dict[str, Any],
    block: int,
    suspect: Suspect,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(graph_pass, "call", broken(graph_pass.call, block))

    found = locate_error(replace(suspect, options=replace(OPTIONS, **changes)), [images()], FAILED)

    assert found == f"in eager PyTorch the numbers part after pass {graph_pass.name}, in block {block}"


def test_merge_that_breaks_a_block_is_seen_where_the_next_one_merges(
    suspect: Suspect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(InsertTokenMerge, "call", broken(InsertTokenMerge.call, 0))

    found = locate_error(suspect, [images()], FAILED)

    assert (
        found
        == "in eager PyTorch the numbers part after pass insert_token_merge, before the merge of block 1"
    )


def test_wrong_order_of_the_legalised_sort_is_seen_in_the_first_match(
    suspect: Suspect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decompose_stable_sort, "ranks_descending", lambda scores: ranks_descending(-scores))
    counted = replace(OPTIONS, forms=Forms(ranking="count"))

    found = locate_error(replace(suspect, options=counted), [images()], FAILED)

    assert (
        found == "in eager PyTorch the numbers part after pass decompose_stable_sort, in the match of block 0"
    )


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="plain"),
        pytest.param({"precision": "fp16", "forms": Forms(mask="folded", ranking="count")}, id="target form"),
        pytest.param({"precision": "int8"}, id="int8"),
        pytest.param({"normalization": BYTES}, id="bytes"),
    ],
)
def test_engine_is_named_where_every_graph_agrees(changes: dict[str, Any], suspect: Suspect) -> None:
    options = replace(OPTIONS, **changes)
    given, reference = images(), suspect.reference
    if options.normalization is not None:
        given = torch.randint(0, 256, (2, 8, 8, 3), generator=torch.Generator().manual_seed(0)).to(
            torch.uint8
        )
        reference = rewrite(suspect.program, suspect.schedule, options)

    found = locate_error(replace(suspect, options=options, reference=reference), [given], FAILED)

    assert found.startswith("the graphs after all 1")
    assert found.endswith(
        "agree in eager PyTorch, so the difference comes from the engine; its matches first differ in block 1"
    )
