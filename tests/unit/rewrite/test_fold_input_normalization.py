"""Bytes in: the same numbers as preprocessing by hand, with or without folding into the patch embedding."""

from typing import Literal, cast

import pytest
import torch
from torch import Tensor, nn

from exporter.errors import UnsupportedGraphError
from exporter.graph import GraphPass
from exporter.graph.nodes import calls, input_nodes
from exporter.graph.operators import aten
from exporter.rewrite.fold_input_normalization import FoldInputNormalization, InsertInputNormalization
from tests.unit.rewrite.small_models import (
    Block,
    Rewritten,
    SmallVit,
    images,
    random,
    results,
    rewritten,
    seeded,
)

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Layout = Literal["nchw", "nhwc"]


def normalization(layout: Layout) -> InsertInputNormalization:
    return InsertInputNormalization(mean=MEAN, std=STD, layout=layout)


def bytes_of(layout: Layout, batch: int = 2) -> Tensor:
    """Return random bytes with both extremes in them."""
    values = torch.randint(0, 256, (batch, 3, 8, 8), generator=torch.Generator().manual_seed(0)).to(
        torch.uint8
    )
    values[:, :, 0, 0], values[:, :, 0, 1] = 0, 255
    return values if layout == "nchw" else values.permute(0, 2, 3, 1).contiguous()


def preprocessed(images_BCHW: Tensor) -> Tensor:
    """Return what preprocessing by hand gives, channel by channel."""
    planes = [
        (images_BCHW[:, channel].float() / 255 - mean) / std
        for channel, (mean, std) in enumerate(zip(MEAN, STD, strict=True))
    ]
    return torch.stack(planes, dim=1)


LAYOUTS = [pytest.param("nchw", id="NCHW"), pytest.param("nhwc", id="NHWC")]


def folded(model: nn.Module, layout: Layout = "nchw", *passes: GraphPass) -> Rewritten:
    """Return a model that takes bytes; fail unless it computes what it computes from images preprocessed by hand."""
    pair = rewritten(seeded(model), images(), normalization(layout), *passes)
    values = bytes_of(layout, batch=5)
    planes = values if layout == "nchw" else values.permute(0, 3, 1, 2)

    (found,), (expected,) = pair.after(values), pair.before(preprocessed(planes))

    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    return pair


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bytes_give_what_preprocessing_by_hand_and_the_float_model_give(layout: Layout) -> None:
    assert folded(SmallVit(Block()), layout).outcome.modified

    pair = folded(SmallVit(Block()), layout, FoldInputNormalization())

    assert [outcome.rewrites for outcome in pair.outcomes] == [1, 1]
    assert pair.outcome.declined == ()
    assert not calls(pair.after.graph, aten.div.Tensor, aten.sub.Tensor)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_input_becomes_bytes_in_the_layout_asked_and_outputs_stay(layout: Layout) -> None:
    pair = rewritten(seeded(SmallVit(Block())), images(), normalization(layout))
    (before,), (after,) = input_nodes(pair.before.graph), input_nodes(pair.after.graph)

    assert after.name == before.name
    assert after.meta["val"].dtype == torch.uint8
    assert tuple(after.meta["val"].shape[1:]) == ((3, 8, 8) if layout == "nchw" else (8, 8, 3))
    assert before.meta["val"].dtype == torch.float32
    assert len(results(pair.after)) == len(results(pair.before)) == 1


def test_float_model_without_normalization_is_left_alone() -> None:
    pair = rewritten(seeded(SmallVit(Block())), images(), FoldInputNormalization())

    pair.assert_untouched()
    assert pair.outcome.declined == ()


@pytest.mark.parametrize(
    "convolution",
    [
        pytest.param(nn.Conv2d(3, 4, 2, stride=2, bias=False), id="no bias"),
        pytest.param(nn.Conv2d(3, 4, 2, stride=2, padding="valid"), id="padding valid"),
        pytest.param(nn.Conv2d(3, 4, 2, stride=2, dilation=2), id="dilation"),
    ],
)
def test_convolution_without_padding_is_folded(convolution: nn.Module) -> None:
    assert folded(convolution, "nchw", FoldInputNormalization()).outcome.rewrites == 1


class TwoStems(nn.Module):
    """Two convolutions over the same images."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 2), nn.Conv2d(3, 4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.first(x) + self.second(x))


class StandardizedConvolution(nn.Module):
    """A convolution whose weight is computed, as hybrid stems have it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(random(4, 3, 2, 2))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(x, self.weight - self.weight.mean())


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(nn.Conv2d(3, 4, 3, padding=1), id="padding 1"),
        pytest.param(nn.Conv2d(3, 4, 3, padding="same"), id="padding same"),
        pytest.param(TwoStems(), id="two readers"),
        pytest.param(nn.Conv2d(3, 6, 2, groups=3), id="groups"),
        pytest.param(nn.Conv2d(3, 6, 2, groups=3, padding="valid"), id="groups, padding valid"),
        pytest.param(StandardizedConvolution(), id="computed weight"),
    ],
)
def test_other_patch_embeddings_decline_and_keep_the_numbers(model: nn.Module) -> None:
    pair = folded(model, "nchw", FoldInputNormalization())

    assert not pair.outcome.modified
    (reason,) = pair.outcome.declined
    assert "one convolution without padding and groups" in reason


class NormalizesItself(nn.Module):
    """A model that takes images in 0..1 and normalises them."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.mean, self.std = nn.Buffer(random(*shape)), nn.Buffer(random(*shape, seed=2).abs() + 0.5)
        self.stem = nn.Conv2d(3, 4, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.stem((x - self.mean) / self.std))


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param((3, 1, 1), id="per channel"),
        pytest.param((1, 3, 1, 1), id="per channel with a batch axis"),
        pytest.param((1, 1, 1), id="one for all"),
        pytest.param((8, 8), id="per pixel"),
        pytest.param((3, 8, 8), id="per value"),
    ],
)
def test_normalization_of_the_model_s_own_keeps_its_numbers(shape: tuple[int, ...]) -> None:
    pair = rewritten(seeded(NormalizesItself(*shape)), images(), FoldInputNormalization())

    pair.assert_same_signature()
    pair.assert_same_numbers(images(3), atol=1e-5)


class ReadsTheSize(nn.Module):
    """A model whose result depends on the size of the image as a number."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).transpose(1, 2) * (x.shape[2] * torch.ones(1))


def test_static_image_size_read_as_a_number_is_a_constant_and_works() -> None:
    folded(ReadsTheSize(), "nhwc")


def test_graph_that_reads_the_image_s_size_at_run_time_is_refused() -> None:
    pair = rewritten(seeded(nn.Conv2d(3, 4, 2)), images())
    graph = pair.after.graph
    (convolution,) = calls(graph, aten.conv2d.default)
    with graph.inserting_before(convolution):
        graph.call_function(aten.sym_size.int, (*input_nodes(graph), 2))

    with pytest.raises(UnsupportedGraphError, match="reads the image's size"):
        normalization("nhwc").call(pair.after)
