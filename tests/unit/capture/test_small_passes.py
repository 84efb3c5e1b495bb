"""The passes that only tidy up: what they remove, what they must not, and that numbers stay bit for bit."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from exporter.capture import capture, export_graph
from exporter.capture.remove_trace_artifacts import RemoveTraceArtifacts
from exporter.errors import UnsupportedGraphError
from exporter.graph import GraphPass, run_passes
from exporter.graph.nodes import calls, evaluate, image_dependent
from exporter.graph.operators import aten
from exporter.rewrite.remove_no_ops import RemoveNoOps

IMAGES = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))

Function = Callable[[Tensor], Tensor]


class Computes(nn.Module):
    """A model of one function."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> Tensor:
        """Return the function of the images."""
        return self.function(images)


def traced(function: Function) -> fx.GraphModule:
    """Trace a function as `capture` does, with no pass run."""
    exported = export_graph(Computes(function).eval(), IMAGES, dynamic_batch=True)
    module = exported.module(check_guards=False)
    assert isinstance(module, fx.GraphModule)
    return module


def check(function: Function, graph_pass: GraphPass, rewrites: int, gone: tuple[Any, ...]) -> None:
    """Run one pass and hold it to its count, to what it removes, and to the numbers."""
    graph_module = traced(function)

    (outcome,) = run_passes(graph_module, [graph_pass])

    assert (outcome.rewrites, outcome.modified) == (rewrites, rewrites > 0)
    assert not calls(graph_module.graph, *gone)
    result = graph_module(IMAGES)
    torch.testing.assert_close(result, function(IMAGES), rtol=0, atol=0)


def dropped(x: Tensor) -> Tensor:
    return nn.functional.dropout(x + 1, 0.5, training=False) * 2


@pytest.mark.parametrize(
    ("function", "rewrites", "gone"),
    [
        pytest.param(dropped, 1, (aten.dropout.default,), id="dropout in evaluation"),
        pytest.param(lambda x: (x + 1).view(-1, 48), 1, (aten.view.default,), id="view"),
        pytest.param(lambda x: torch.arange(4).type_as(x) + x, 1, (aten.type_as.default,), id="type_as"),
        pytest.param(
            lambda x: x.to(torch.float64).to(torch.float32) + 1, 2, (aten._assert_tensor_metadata.default,),
            id="assertions about metadata",
        ),
        pytest.param(lambda x: x * 2 + 1, 0, (), id="nothing to do"),
    ],
)  # fmt: skip
def test_trace_artifacts_are_removed(function: Function, rewrites: int, gone: tuple[Any, ...]) -> None:
    check(function, RemoveTraceArtifacts(), rewrites, gone)


def test_table_cast_to_the_images_type_does_not_depend_on_them() -> None:
    graph_module = traced(lambda x: torch.arange(4).type_as(x) + x)
    run_passes(graph_module, [RemoveTraceArtifacts()])

    (cast,) = calls(graph_module.graph, aten.to.dtype)

    assert cast not in image_dependent(graph_module.graph)
    assert evaluate(graph_module, cast, {}).dtype == torch.float32


@pytest.mark.parametrize(
    ("function", "rewrites", "gone"),
    [
        pytest.param(lambda x: (x + 1).clone() * 2, 1, (aten.clone.default,), id="clone"),
        pytest.param(
            lambda x: x.transpose(2, 3).contiguous() * 2, 1, (aten.contiguous.default,), id="contiguous"
        ),
        pytest.param(lambda x: (x + 1).reshape(x.shape) * 2, 1, (aten.reshape.default,), id="same shape"),
        pytest.param(lambda x: (x + 1)[:, :, 0:4] * 2, 1, (aten.slice.Tensor,), id="slice of everything"),
        pytest.param(
            lambda x: (x + 1).expand(-1, 3, -1, -1) * 2, 1, (aten.expand.default,), id="same expand"
        ),
        pytest.param(lambda x: (x + 1).flatten(1) * 2, 0, (), id="another shape"),
        pytest.param(lambda x: aten.slice.Tensor(x, 2, 1, 4) * 2, 0, (), id="slice of some"),
        pytest.param(lambda x: (x + 1).double() * 2, 0, (), id="another type"),
        pytest.param(lambda x: x.mean(1, keepdim=True).expand(-1, 3, -1, -1) * 2, 0, (), id="another expand"),
    ],
)
def test_no_ops_are_removed_and_nothing_else(
    function: Function, rewrites: int, gone: tuple[Any, ...]
) -> None:
    check(function, RemoveNoOps(), rewrites, gone)


def test_a_value_moved_within_its_shape_is_not_a_no_op() -> None:
    graph_module = traced(lambda x: (x + 1).transpose(2, 3).reshape(x.shape) * 2)

    run_passes(graph_module, [RemoveNoOps()])

    torch.testing.assert_close(graph_module(IMAGES), (IMAGES + 1).transpose(2, 3) * 2, rtol=0, atol=0)


class TwoOutputs(nn.Module):
    """A model that returns a tuple."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return two results."""
        return images + 1, images * 2


def test_outputs_become_a_flat_tuple() -> None:
    one, two = capture(TwoOutputs(), IMAGES).graph_module(IMAGES)

    torch.testing.assert_close((one, two), (IMAGES + 1, IMAGES * 2))


def test_any_batch_runs_where_the_model_allows_it() -> None:
    program = capture(nn.Conv2d(3, 2, 2), IMAGES)

    assert program.fixed_batch is None
    assert program.graph_module(IMAGES[:1])[0].shape == (1, 2, 3, 3)


def test_a_batch_that_the_model_fixes_is_reported() -> None:
    program = capture(Computes(lambda x: x.reshape(6, 16).sum(0)), IMAGES)

    assert program.fixed_batch == 2


def test_control_flow_on_values_is_refused_in_one_line() -> None:
    branches = Computes(lambda x: x + 1 if x.sum() > 0 else x)

    with pytest.raises(UnsupportedGraphError, match=r"torch\.export cannot trace it") as refusal:
        capture(branches, IMAGES)

    assert "\n" not in str(refusal.value)
