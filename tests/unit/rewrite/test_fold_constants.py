"""Constants that engines would round otherwise, and squeezes that find nothing."""

import torch
from torch import Tensor, nn

from exporter.capture import capture
from exporter.graph.nodes import calls
from exporter.graph.operators import aten
from exporter.rewrite.fold_constants import FoldConstants
from exporter.rewrite.remove_no_ops import RemoveNoOps


class StepEmbedding(nn.Module):
    """As denoisers embed a step, with a part that depends on the batch."""

    def forward(self, step_B: Tensor) -> Tensor:
        frequency_N = torch.exp(torch.arange(4, dtype=torch.float32) * -2.3)
        ones = torch.ones(step_B.shape[0]).exp()
        return torch.sin(step_B[:, None] * frequency_N[None]).squeeze(1) + ones[:, None]


def test_what_depends_on_no_input_and_not_on_the_batch_is_computed_once() -> None:
    module = capture(StepEmbedding(), torch.zeros(2)).graph_module

    outcome = FoldConstants().call(module)
    module.recompile()

    assert outcome.rewrites == 1
    (left,) = calls(module.graph, aten.exp.default)
    assert calls(module.graph, aten.ones.default) == [left.args[0]]
    steps = torch.tensor([3.0, 999.0, 1.0])
    assert torch.equal(module(steps)[0], StepEmbedding()(steps))


def test_a_squeeze_that_finds_nothing_is_removed() -> None:
    module = capture(StepEmbedding(), torch.zeros(2)).graph_module

    RemoveNoOps().call(module)

    assert calls(module.graph, aten.squeeze.dim) == []
