"""Passes: take the image as bytes, and fold its normalisation into the patch embedding."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import fx

from exporter.errors import InternalError, UnsupportedGraphError
from exporter.graph.graph_pass import GraphPass, PassOutcome
from exporter.graph.nodes import (
    add_call,
    add_parameter,
    attribute,
    calls,
    input_nodes,
    integer,
    operand,
    optional_operand,
    shape_of,
)
from exporter.graph.operators import aten
from exporter.rewrite.channel_rows import has_parameters

if TYPE_CHECKING:
    from exporter.rewrite.context import PassContext

Channels = Literal["nchw", "nhwc"]


@dataclass(frozen=True, kw_only=True)
class InsertInputNormalization(GraphPass):
    """Make the graph take uint8 images.

    Given: a graph over normalised float images (B, C, H, W).
    Result: the same over bytes, (B, C, H, W) or (B, H, W, C): `(images / 255 - mean) / std` first.

    Attributes:
        mean: per channel, of images in 0..1.
        std: likewise.
        layout: of the bytes.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    layout: Channels
    name: ClassVar[str] = "insert_input_normalization"

    @classmethod
    def configured(cls, context: "PassContext") -> "InsertInputNormalization | None":
        """As asked for; None for a graph that takes normalised floats."""
        return context.options.normalization

    def normalized(self, images: torch.Tensor) -> torch.Tensor:
        """What the graph makes of bytes: float32 (B, C, H, W)."""
        planes = images.permute(0, 3, 1, 2) if self.layout == "nhwc" else images
        mean, std = (_channelwise(values, torch.float32) for values in (self.mean, self.std))
        return (planes / 255 - mean) / std

    def call(self, graph_module: fx.GraphModule) -> PassOutcome:
        """Put the normalisation between the placeholder and its readers."""
        graph, images = graph_module.graph, _image_node(graph_module.graph)
        readers = [user for user in images.users if user.target is not aten.sym_size.int]
        dtype = images.meta["val"].dtype
        _retype(images, self.layout)
        first = images.next
        std = add_parameter(graph_module, first, "input_std", _channelwise(self.std, dtype) * 255)
        mean = add_parameter(graph_module, first, "input_mean", _channelwise(self.mean, dtype) * 255)
        with graph.inserting_before(first):
            floats = add_call(graph, aten.to.dtype, images, dtype)  # first: TensorRT moves no bytes around
            planes = (
                add_call(graph, aten.permute.default, floats, [0, 3, 1, 2])
                if self.layout == "nhwc"
                else floats
            )
            centred = add_call(graph, aten.sub.Tensor, planes, mean)
            normalized = add_call(graph, aten.div.Tensor, centred, std)
        for reader in readers:
            reader.replace_input_with(images, normalized)
        return PassOutcome(name=self.name, rewrites=1)


@dataclass(frozen=True)
class FoldInputNormalization(GraphPass):
    """Fold `(x - m) / s` per channel into the convolution that follows.

    Given: `conv2d((x - m) / s, W, b)` without padding.
    Result: `conv2d(x, W / s, b - sum(W * m / s))`.

    Declines with padding (padded zeros are not zeros any more), groups, and other patch embeddings.
    """

    name: ClassVar[str] = "fold_input_normalization"
    optional: ClassVar[bool] = True

    def call(self, graph_module: fx.GraphModule) -> PassOutcome:
        """Fold the one normalisation that `InsertInputNormalization` made, if it is there."""
        for scaled in calls(graph_module.graph, aten.div.Tensor):
            centred, std = optional_operand(scaled, 0), optional_operand(scaled, 1)
            if centred is None or std is None or centred.target is not aten.sub.Tensor:
                continue
            if not all(_is_per_channel(table, centred) for table in (std, operand(centred, 1))):
                continue
            convolutions = list(scaled.users)
            if len(convolutions) != 1 or not _is_foldable(convolutions[0]):
                reason = f"{scaled.name}: it does not go into one convolution without padding and groups"
                return PassOutcome(name=self.name, rewrites=0, declined=(reason,))
            _fold(graph_module, convolutions[0], centred, std)
            return PassOutcome(name=self.name, rewrites=1)
        return PassOutcome(name=self.name, rewrites=0)


def _image_node(graph: fx.Graph) -> fx.Node:
    """The one placeholder that holds images."""
    found = [node for node in input_nodes(graph) if len(shape_of(node)) == 4]
    if len(found) != 1:
        raise InternalError(f"normalisation is for one input of images, this graph has {len(found)}")
    return found[0]


def _retype(images: fx.Node, layout: Channels) -> None:
    traced = images.meta["val"]
    with traced.fake_mode:
        planes = torch.empty(traced.shape, dtype=torch.uint8)
        images.meta["val"] = planes.permute(0, 2, 3, 1).contiguous() if layout == "nhwc" else planes
    for user in images.users:
        if user.target is aten.sym_size.int and user.args[1] != 0:
            raise UnsupportedGraphError(
                "model: its graph reads the image's size; expected static image sizes"
            )


def _channelwise(values: tuple[float, ...], dtype: torch.dtype) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype).reshape(1, -1, 1, 1)


def _is_per_channel(table: fx.Node, images: fx.Node) -> bool:
    """Whether a parameter has one entry per channel of (B, C, H, W) images."""
    return table.op == "get_attr" and shape_of(table)[-3:] == (shape_of(images)[1], 1, 1)


def _is_foldable(node: fx.Node) -> bool:
    """Whether a node is a convolution with parameters of its own, one group and no padding."""
    if node.target not in (aten.conv2d.default, aten.conv2d.padding) or not has_parameters(node):
        return False
    padding = node.args[4] if len(node.args) > 4 else 0
    return integer(node, 6, default=1) == 1 and padding in (0, [0], [0, 0], "valid")


def _fold(graph_module: fx.GraphModule, convolution: fx.Node, centred: fx.Node, std: fx.Node) -> None:
    mean_value = attribute(graph_module, operand(centred, 1))
    std_value = attribute(graph_module, std)
    bias = optional_operand(convolution, 2)
    weight = attribute(graph_module, operand(convolution, 1)) / std_value
    shift = -(weight * mean_value).sum(dim=(1, 2, 3))
    if bias is not None:
        shift = shift + attribute(graph_module, bias)
    folded_weight = add_parameter(graph_module, convolution, "patch_weight_folded", weight)
    folded_bias = add_parameter(graph_module, convolution, "patch_bias_folded", shift)
    convolution.args = (centred.args[0], folded_weight, folded_bias, *convolution.args[3:])
