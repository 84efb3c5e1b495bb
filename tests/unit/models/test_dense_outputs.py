"""What a model gives with `outputs: dense`, against its own library; and Depth Anything's map, with merges as well."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from exporter.errors import ModelUnavailableError, UsageError
from exporter.models import ModelRequest, load
from exporter.models.shipped.digits import DIGITS_PREPROCESS
from exporter.models.tokens import TorchvisionTokens
from exporter.schedule import ScheduleRequest
from tests.support.compiled import MIN_MARGIN, capture_model, max_abs_error
from tests.support.dense_models import DepthAnything
from tests.support.eager_merge import trace_eager_merged
from tests.support.families import family
from tests.support.hf_families import DINO
from tests.support.loaded_models import assert_computes

HFModel = Callable[[str], tuple[Any, Path]]


def test_dense_engine_of_a_dinov2_of_timm_gives_the_patch_tokens_of_the_model() -> None:
    size = {"depth": 2, "embed_dim": 48, "num_heads": 3}
    request = ModelRequest(
        model="timm:vit_small_patch14_reg4_dinov2",
        options=size,
        weights="random",
        image_size=56,
        outputs="dense",
    )
    loaded, images = load(request), torch.randn(2, 3, 56, 56)
    assert isinstance(loaded.module, nn.Module)
    vit: Any = loaded.module.get_submodule("model")

    program = capture_model(loaded.module, 56).compile(ScheduleRequest(), dense_outputs=True)

    assert (loaded.output_names, loaded.class_names) == (("tokens",), None)
    assert loaded.weights_sha256 == load(ModelRequest(**{**vars(request), "outputs": "own"})).weights_sha256
    assert max_abs_error(program(images)[0], vit.forward_features(images)) < 1e-6


@pytest.mark.parametrize(
    ("name", "tower"),
    [
        pytest.param("Dinov2Model", lambda model: model, id="encoder"),
        pytest.param("ViTForImageClassification", lambda model: model.vit, id="classifier"),
        pytest.param("CLIPModel", lambda model: model.vision_model, id="two towers"),
        pytest.param("BlipForConditionalGeneration", lambda model: model.vision_model, id="part of a model"),
    ],
)
def test_model_of_transformers_gives_its_last_hidden_state(
    name: str, tower: Callable[[Any], Any], hf_model: HFModel
) -> None:
    model, folder = hf_model(name)

    loaded = load(ModelRequest(model=f"hf:{folder}", outputs="dense"))

    assert loaded.output_names == ("tokens",)
    assert_computes(loaded, lambda images: tower(model)(images).last_hidden_state)


def test_torchvision_gives_what_its_encoder_returns() -> None:
    example = family("torchvision_vit")
    vit, kept = example.model(), list[Tensor]()
    vit.get_submodule("encoder").register_forward_hook(lambda _, __, result: kept.append(result))

    vit(example.images())

    assert torch.equal(TorchvisionTokens(vit)(example.images()), kept[0])


def tiny_depth_anything(folder: Path) -> Any:
    torch.manual_seed(3)
    backbone = transformers.Dinov2Config(
        **{**DINO, "num_hidden_layers": 4, "layerscale_value": 0.5},
        out_features=["stage1", "stage2", "stage3", "stage4"],
        reshape_hidden_states=False,
    )
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone,
        patch_size=8,
        reassemble_hidden_size=32,
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        head_hidden_size=4,
    )
    model = transformers.DepthAnythingForDepthEstimation(config).eval().requires_grad_(False)
    model.save_pretrained(folder)
    return model


def test_depth_anything_of_transformers_merges_and_gives_its_map(tmp_path: Path) -> None:
    model = tiny_depth_anything(tmp_path)
    merged, images = (2, 3, 2, 3), torch.randn(2, 3, 32, 32)

    (tmp_path / "look.json").write_text(json.dumps(DIGITS_PREPROCESS.to_dict()))
    look = str(tmp_path / "look.json")
    loaded = load(ModelRequest(model=f"hf:{tmp_path}", outputs="dense", preprocess=look))

    assert loaded.output_names == ("maps",)
    assert_computes(loaded, lambda images: model(images).predicted_depth)
    assert isinstance(loaded.module, nn.Module)
    run = trace_eager_merged(DepthAnything(model).double().eval(), images.double(), merged, "tome")
    assert run.margin > MIN_MARGIN
    request = ScheduleRequest(r_per_layer=merged)
    program = capture_model(loaded.module, 32).compile(request, dense_outputs=True)
    assert max_abs_error(program(images)[0], run.output) < 1e-5


def test_refusals_are_one_line(hf_model: HFModel, tmp_path: Path) -> None:
    tiny_depth_anything(tmp_path)

    with pytest.raises(ModelUnavailableError, match="with --outputs dense its maps are exported$|image_size"):
        load(ModelRequest(model=f"hf:{tmp_path}"))
    with pytest.raises(UsageError, match="--outputs dense: torchvision:resnet18 does not give its tokens"):
        load(ModelRequest(model="torchvision:resnet18", weights="random", outputs="dense"))
    with pytest.raises(UsageError, match="--outputs dense says nothing about a text tower"):
        load(ModelRequest(model="clip_digits", tower="text", outputs="dense"))
