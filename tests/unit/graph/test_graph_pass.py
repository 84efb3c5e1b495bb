"""The runner: passes run in order, and a broken promise is blamed on the pass that broke it."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import fx, nn

from exporter.capture import capture
from exporter.errors import InternalError
from exporter.graph import GraphPass, PassOutcome, copy_graph, run_passes
from exporter.graph.nodes import calls
from exporter.graph.operators import aten
from tests.unit.rewrite.small_models import random


@dataclass(frozen=True)
class RemoveGelu(GraphPass):
    """Replace gelu(x) by x."""

    name: ClassVar[str] = "remove_gelu"

    def call(self, graph_module: fx.GraphModule) -> PassOutcome:
        found = calls(graph_module.graph, aten.gelu.default)
        for node in found:
            node.replace_all_uses_with(node.all_input_nodes[0])
        return PassOutcome(name=self.name, rewrites=len(found))


@dataclass(frozen=True)
class NeedGelu(GraphPass):
    """Require a gelu, and promise that there is none afterwards without doing anything about it."""

    name: ClassVar[str] = "need_gelu"

    def requires(self, graph_module: fx.GraphModule) -> str | None:
        return None if calls(graph_module.graph, aten.gelu.default) else "there is no gelu"

    def call(self, graph_module: fx.GraphModule) -> PassOutcome:
        return PassOutcome(name=self.name, rewrites=0, declined=("gelu: kept",))

    def ensures(self, graph_module: fx.GraphModule) -> str | None:
        return "a gelu is left" if calls(graph_module.graph, aten.gelu.default) else None


@pytest.fixture
def graph_module() -> fx.GraphModule:
    return capture(nn.Sequential(nn.Linear(4, 4), nn.GELU()), random(2, 4)).graph_module


def test_missing_requirement_is_blamed_on_the_pass_and_names_those_that_ran(
    graph_module: fx.GraphModule,
) -> None:
    message = "pass need_gelu requires: there is no gelu; passes that ran: remove_gelu, remove_gelu "
    with pytest.raises(InternalError, match=message):
        run_passes(graph_module, [RemoveGelu(), RemoveGelu(), NeedGelu()])


def test_broken_promise_is_blamed_on_the_pass_that_made_it(graph_module: fx.GraphModule) -> None:
    with pytest.raises(
        InternalError, match="pass need_gelu ensures: a gelu is left; passes that ran: need_gelu "
    ):
        run_passes(graph_module, [NeedGelu(), RemoveGelu()])


def test_first_pass_of_all_has_none_before_it(graph_module: fx.GraphModule) -> None:
    run_passes(graph_module, [RemoveGelu()])

    with pytest.raises(InternalError, match="requires: there is no gelu; passes that ran: none "):
        run_passes(graph_module, [NeedGelu()])


def test_outcomes_come_in_order_and_are_true_to_fact(graph_module: fx.GraphModule) -> None:
    outcomes = run_passes(graph_module, [RemoveGelu(), RemoveGelu()])

    assert [(outcome.rewrites, outcome.modified) for outcome in outcomes] == [(1, True), (0, False)]


def test_dead_nodes_are_gone_and_the_module_runs_the_new_graph(graph_module: fx.GraphModule) -> None:
    x = random(2, 4, seed=3)
    copied = copy_graph(graph_module)

    run_passes(copied, [RemoveGelu()])

    assert not calls(copied.graph, aten.gelu.default)
    torch.testing.assert_close(torch.nn.functional.gelu(copied(x)[0]), graph_module(x)[0], atol=0.0, rtol=0.0)


def test_copy_is_another_graph_over_the_same_parameters(graph_module: fx.GraphModule) -> None:
    copied = copy_graph(graph_module)
    run_passes(copied, [RemoveGelu()])

    assert calls(graph_module.graph, aten.gelu.default)
    assert {value.data_ptr() for value in copied.state_dict().values()} == {
        value.data_ptr() for value in graph_module.state_dict().values()
    }
    assert all("val" in node.meta for node in copied.graph.nodes if node.op == "call_function")
