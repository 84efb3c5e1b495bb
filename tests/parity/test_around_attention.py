"""Merging around attention in denoisers of diffusers, against the definition hooked onto the library's modules."""

from functools import cache
from pathlib import Path

import pytest
import torch
import torch._inductor
from torch import Tensor, nn

from exporter.anatomy import examine
from exporter.capture import Program, capture
from exporter.errors import UnsupportedGraphError
from exporter.models.diffusers.denoisers import DiTCall, PixArtCall, UNetCall
from exporter.reduction import method
from exporter.rewrite import RewriteOptions, RewrittenProgram, rewrite
from exporter.schedule import Grid, Place, ScheduleRequest, plan
from exporter.targets import EmitRequest, Signature, TensorSpec, target
from exporter.targets.aoti.options import AotiOptions
from tests.support.compiled import QUICKER, captured_family
from tests.support.denoisers import merging, tiny_dit, tiny_pixart, tiny_unet

TOMESD = method("tomesd")


def drawn(*shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def of_unet() -> tuple[nn.Module, tuple[Tensor, ...]]:
    latents, texts = drawn((2, 4, 8, 8), (2, 5, 12))
    return UNetCall(tiny_unet()), (latents, torch.tensor([3.0, 700.0]), texts)


def of_dit() -> tuple[nn.Module, tuple[Tensor, ...]]:
    (latents,) = drawn((2, 4, 8, 8))
    return DiTCall(tiny_dit()), (latents, torch.tensor([3.0, 700.0]), torch.tensor([1, 9]))


def of_pixart() -> tuple[nn.Module, tuple[Tensor, ...]]:
    latents, texts = drawn((2, 4, 8, 8), (2, 5, 12))
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    return PixArtCall(tiny_pixart()), (latents, torch.tensor([3.0, 700.0]), texts, mask)


MAKERS = {"unet": of_unet, "dit": of_dit, "pixart": of_pixart}


@cache
def captured(family: str) -> Program:
    model, given = MAKERS[family]()
    return capture(model, *given, largest_batch=63)


def reduced(family: str, ratio: float, depth: int) -> RewrittenProgram:
    program, options = captured(family), {"max_downsample": depth}
    anatomy = examine(program.graph_module, TOMESD.place)
    schedule = plan(ScheduleRequest(ratio=ratio), TOMESD.limited(anatomy.geometry, options))
    return rewrite(
        program, schedule, RewriteOptions(method=TOMESD, method_options=options, proportional=False, batch=2)
    )


def test_compiled_package_equals_the_definition(tmp_path: Path) -> None:
    model, given = of_dit()
    names = ("hidden_states", "timestep", "class_labels")
    inputs = {name: tensor.numpy() for name, tensor in zip(names, given, strict=True)}
    request = EmitRequest(
        signature=Signature(
            inputs=tuple(
                TensorSpec(name=name, dtype=str(array.dtype), shape=array.shape)
                for name, array in inputs.items()
            ),
            outputs=(TensorSpec(name="out_sample", dtype="float32", shape=(2, 8, 8, 8)),),
        ),
        options=AotiOptions(),
    )
    with torch.no_grad(), merging(model, 0.5, {0}):
        expected = model(*given)

    with torch._inductor.config.patch(QUICKER):
        artifact = target("aoti").emit(reduced("dit", 0.5, 2), request, tmp_path)

    got = torch.from_numpy(artifact.runner(inputs)["out_sample"])
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("family", "ratio", "depth", "merged"),
    [
        pytest.param("unet", 0.5, 1, (32, 32, 32), id="unet"),
        pytest.param("dit", 0.5, 2, (8,), id="dit"),
        pytest.param("pixart", 0.75, 2, (12,), id="pixart-most"),
    ],
)
def test_merging_around_attention_equals_its_definition_hooked_onto_diffusers(
    family: str, ratio: float, depth: int, merged: tuple[int, ...]
) -> None:
    model, given = MAKERS[family]()
    program = reduced(family, ratio, depth)
    with torch.no_grad():
        dense = model(*given)
        with merging(model, ratio, set(range(len(merged)))):
            expected = model(*given)

    (got, *records) = program(*given)

    assert program.merged == merged
    assert len(records) == len(merged)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(got, dense, atol=1e-3)
    torch.testing.assert_close(captured(family).graph_module(*given)[0], dense, atol=1e-5, rtol=1e-5)


class MapAttention(nn.Module):
    """Residual self-attention over the cells of a feature map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm, self.heads = nn.LayerNorm(channels), channels // 8
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

    def forward(self, map_BCHW: Tensor) -> Tensor:
        rows_BNC = map_BCHW.flatten(2).transpose(1, 2)
        shape = (*rows_BNC.shape[:2], 3, self.heads, 8)
        q, k, v = self.qkv(self.norm(rows_BNC)).reshape(shape).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return torch.as_tensor((rows_BNC + self.out(mixed)).transpose(1, 2).unflatten(2, map_BCHW.shape[2:]))


class TwoMaps(nn.Module):
    """Attention on maps of two sizes with a skip around the smaller one; one value never carries all of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.down = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 32, 2, stride=2)
        self.large, self.small, self.last = MapAttention(16), MapAttention(32), nn.Conv2d(48, 3, 1)

    def forward(self, images: Tensor) -> Tensor:
        large = self.large(self.first(images))
        small = nn.functional.interpolate(self.small(self.down(large)), scale_factor=2.0)
        return torch.as_tensor(self.last(torch.cat((small, large), dim=1)))


def test_attentions_are_found_with_their_maps_and_merge_down_to_the_depth_that_is_asked_for() -> None:
    anatomy = examine(capture(TwoMaps(), torch.zeros(2, 3, 8, 10)).graph_module, TOMESD.place)

    def merged(depth: int) -> tuple[int, ...]:
        options = {"max_downsample": depth}
        return plan(ScheduleRequest(ratio=0.5), TOMESD.limited(anatomy.geometry, options)).merged

    assert anatomy.geometry.grids == (
        Grid(rows=8, columns=10, downsampling=1),
        Grid(rows=4, columns=5, downsampling=2),
    )
    assert (merged(1), merged(2)) == ((40, 0), (40, 10))
    assert anatomy.workload.per_token == (4 * 16**2, 4 * 32**2, 0)
    assert anatomy.workload.per_pair == (2 * 16, 2 * 32, 0)
    convolutions = 80 * 16 * 27 + 20 * 32 * 64 + 80 * 3 * 48
    assert anatomy.workload.fixed == convolutions


@pytest.mark.parametrize("place", [TOMESD.place, "after-attention"])
def test_a_model_of_the_other_kind_is_refused_with_the_method_for_it(place: Place) -> None:
    around = place == TOMESD.place
    model = captured_family("timm_vit").program if around else captured("dit")

    with pytest.raises(UnsupportedGraphError, match="--method tome$" if around else "--method tomesd, "):
        examine(model.graph_module, place)
