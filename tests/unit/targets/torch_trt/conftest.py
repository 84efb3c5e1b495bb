"""The library that stands in, and a small program."""

import sys
from dataclasses import replace

import pytest
import torch
from torch import Tensor, fx, nn

from exporter.reduction import Site
from exporter.rewrite import RewrittenProgram
from exporter.targets.torch_trt import library
from tests.unit.targets.torch_trt.stand_in import VERSIONS, StandIn


class Small(nn.Module):
    """An output, and what looks like a match: sixteen colours of each image, and the place of the strongest."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 16)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.head(images.mean(dim=(2, 3)))
        found = scores.max(dim=-1)
        return scores + found.values[:, None], found.indices[:, None]


@pytest.fixture(scope="session")
def small(program: RewrittenProgram) -> RewrittenProgram:
    """What a target looks at of a program, with its stack traces, over a model that takes no time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.fx.config, "do_not_emit_stack_traces", False)
        exported = torch.export.export(Small().requires_grad_(False), (torch.zeros(2, 3, 4, 4),))
    eager = exported.module(check_guards=False)
    assert isinstance(eager, fx.GraphModule)
    return replace(
        program, exported=exported, eager=eager, outputs=1, sites=(Site(r=1, dropped=0, prefix=1, depth=0.0),)
    )


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Of the newest version, on a GPU that is not there."""
    return install(StandIn(version=VERSIONS[-1]), monkeypatch)


def install(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    for name, module in stand_in.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(library, "compute_capability", lambda: "90")
    return stand_in
