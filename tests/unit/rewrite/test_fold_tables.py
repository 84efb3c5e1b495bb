"""Tables of positions become constants before anything is looked up in them."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from exporter.errors import UnsupportedGraphError
from exporter.graph.nodes import calls
from exporter.reduction.positions import entries_at
from exporter.rewrite import RewrittenProgram
from exporter.schedule import ScheduleRequest
from tests.support.compiled import capture_model

TOKENS, WIDTH = 16, 8


class WithTables(nn.Module):
    """Three attentions over 16 patches; each adds a table to its tokens, which `table` computes."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, 6, 6)
        self.table_NC = nn.Parameter(torch.randn(TOKENS, WIDTH))

    def table(self, images: Tensor) -> Tensor:
        """The cosine of a parameter, computed in every block."""
        return self.table_NC.cos()

    def forward(self, images: Tensor) -> Tensor:
        """Attend and average."""
        x = self.patches(images).flatten(2).transpose(1, 2)
        for _ in range(3):
            q = (x + self.table(images)).unsqueeze(1)
            x = x + functional.scaled_dot_product_attention(q, q, x.unsqueeze(1)).squeeze(1)
        pooled: Tensor = x.mean(dim=1)
        return pooled


class WrittenInPlace(WithTables):
    """The last row of the table is written into it afterwards."""

    def table(self, images: Tensor) -> Tensor:
        """A copy that is written to."""
        table_NC = torch.zeros(TOKENS, WIDTH)
        table_NC[3:] = self.table_NC[3:]
        return table_NC


class ByPlaceInTheBatch(WithTables):
    """The table differs from image to image."""

    def table(self, images: Tensor) -> Tensor:
        """Larger for later images of a batch."""
        return self.table_NC * torch.arange(len(images)).reshape(-1, 1, 1)


def compiled(model: WithTables) -> RewrittenProgram:
    """Merge two tokens in each of the first two blocks."""
    return capture_model(model.eval()).compile(ScheduleRequest(r_per_layer=(2, 2, 0)))


def tables_of(program: RewrittenProgram) -> list[Tensor]:
    """What is looked up in, by place in the graph."""
    lookups = calls(program.merging.graph, entries_at)
    return [getattr(program.merging, str(lookup.args[0].target)) for lookup in lookups]  # type: ignore[union-attr]


def test_equal_tables_are_one_constant_with_an_axis_for_the_images() -> None:
    model = WithTables()

    first, second = tables_of(compiled(model))

    assert first is second
    assert torch.equal(first, model.table_NC.detach().cos()[None])


def test_what_is_written_in_place_is_in_the_constant() -> None:
    model = WrittenInPlace()

    table, _ = tables_of(compiled(model))

    assert torch.equal(table[0], torch.cat((torch.zeros(3, WIDTH), model.table_NC.detach()[3:])))


def test_tables_that_differ_from_image_to_image_are_refused() -> None:
    with pytest.raises(UnsupportedGraphError, match=r"its entries differ from image to image"):
        compiled(ByPlaceInTheBatch())
