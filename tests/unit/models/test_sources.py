"""Every source gives a module that takes one tensor, computes what its library does, and can be captured."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import timm
import torch
from torch import nn

from exporter.errors import ModelUnavailableError, UsageError, WeightsError
from exporter.models import ModelRequest, load
from exporter.models.request import Tower
from exporter.models.shipped.digits import VIT_DIGITS_WEIGHTS
from exporter.models.timm import source as timm_source
from exporter.models.timm.model import TimmModel
from tests.support.hf_families import of
from tests.support.loaded_models import assert_captures, assert_computes, example_of, save_state

HFModel = Callable[[str], tuple[nn.Module, Path]]


def test_mae_weights_turn_proportional_attention_off(tmp_path: Path) -> None:
    small = {"decoder_num_hidden_layers": 1, "decoder_hidden_size": 32}
    of("ViTMAEForPreTraining", **small)().save_pretrained(tmp_path)
    loaded = load(ModelRequest(model=f"hf:{tmp_path}"))
    assert not loaded.proportional_attention
    assert loaded.output_names == ("features",)
    assert_captures(loaded)


@pytest.mark.parametrize(
    ("model", "output_name", "proportional_attention"),
    [
        pytest.param("timm:vit_base_patch16_224.mae", "features", False, id="MAE"),
        pytest.param("vit_b16", "logits", True, id="classifier"),
        pytest.param("vit_h14", "logits", True, id="CLIP tower fine-tuned into a classifier"),
        pytest.param("timm:vit_base_patch32_clip_224.openai", "embedding", True, id="CLIP tower"),
        pytest.param("timm:vit_base_patch16_siglip_224.webli", "embedding", True, id="SigLIP tower"),
        pytest.param("dinov2_s14", "features", True, id="DINOv2"),
    ],
)
def test_a_timm_tag_decides_output_and_attention(
    model: str, output_name: str, proportional_attention: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def on_meta(model: TimmModel, _arguments: object) -> nn.Module:
        with torch.device("meta"):
            vit: nn.Module = timm.create_model(model.full_name)
        return vit

    monkeypatch.setattr(timm_source, "_fetch_pretrained", on_meta)
    monkeypatch.setattr(timm_source, "sha256_of", lambda _state: "")
    loaded = load(ModelRequest(model=model))
    assert loaded.output_names == (output_name,)
    assert loaded.proportional_attention == proportional_attention
    assert loaded.weights_tag == loaded.id.partition(".")[2]


@pytest.mark.parametrize("tower", ["image", "text"])
def test_an_hf_state_dict_has_the_checkpoints_own_keys(tower: str, hf_model: HFModel) -> None:
    _, folder = hf_model("CLIPModel")
    request = {"model": f"hf:{folder}", "tower": tower}
    from_file = load(ModelRequest(weights=str(folder / "model.safetensors"), **request))  # type: ignore[arg-type]
    assert from_file.weights_sha256 == load(ModelRequest(**request)).weights_sha256  # type: ignore[arg-type]


def test_hf_weights_of_another_architecture_are_listed(hf_model: HFModel) -> None:
    _, vit = hf_model("ViTForImageClassification")
    _, clip = hf_model("CLIPModel")
    with pytest.raises(WeightsError, match=r"missing: classifier\.bias.* unexpected: logit_scale"):
        load(ModelRequest(model=f"hf:{vit}", weights=str(clip / "model.safetensors")))


def test_an_hf_model_without_text_tower_is_refused(hf_model: HFModel) -> None:
    _, folder = hf_model("Dinov2Model")
    with pytest.raises(UsageError, match="no text tower"):
        load(ModelRequest(model=f"hf:{folder}", tower="text"))


@pytest.mark.parametrize(
    ("model", "asked"),
    [
        pytest.param("timm:test_vit", {}, id="timm ViT"),
        pytest.param("timm:test_vit", {"image_size": 96}, id="timm ViT at another size"),
        pytest.param("timm:test_vit2", {}, id="timm ViT with a register"),
        pytest.param("deit_ti16_distilled", {"image_size": 32, "options": {"depth": 2}}, id="distilled DeiT"),
    ],
)
def test_registry_models_capture_with_random_weights(model: str, asked: dict[str, Any]) -> None:
    loaded = load(ModelRequest(model=model, weights="random", **asked))
    assert_captures(loaded)
    assert loaded.output_names == ("logits",)
    assert loaded.preprocess is not None
    assert loaded.preprocess.input_shape == loaded.example_input.shape
    assert (loaded.weights_kind, loaded.weights_tag) == ("random", None)


@pytest.mark.parametrize("tower", ["image", "text"])
def test_open_clip_towers_compute_what_the_library_does(
    tower: Tower, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("open_clip.factory._MODEL_CONFIGS", {"tiny": _TINY_CLIP})
    clip = open_clip.create_model("tiny", device="cpu").eval()
    loaded = load(ModelRequest(model="open_clip:tiny", weights=save_state(clip, tmp_path), tower=tower))
    drawn = load(ModelRequest(model="open_clip:tiny", weights="random", tower=tower))
    assert drawn.example_input == loaded.example_input
    assert_computes(loaded, clip.encode_image if tower == "image" else clip.encode_text)
    assert_captures(loaded)


_TINY_CLIP = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 50, "width": 32, "heads": 2, "layers": 2},
}


def test_open_clip_without_a_tag_asks_for_one() -> None:
    with pytest.raises(ModelUnavailableError, match=r"open_clip:ViT-B-32/TAG"):
        load(ModelRequest(model="open_clip:ViT-B-32"))


@pytest.mark.skipif(not VIT_DIGITS_WEIGHTS.is_file(), reason="the trained weights are not there yet")
def test_vit_digits_brings_its_weights() -> None:
    loaded = load(ModelRequest(model="vit_digits"))
    assert (loaded.weights_kind, loaded.source, loaded.id) == ("embedded", "exporter", "vit_digits")
    assert isinstance(loaded.module, nn.Module)
    assert loaded.module(example_of(loaded)).shape == (2, 10)


def test_vit_digits_takes_random_weights_and_files(tmp_path: Path) -> None:
    drawn = load(ModelRequest(model="vit_digits", weights="random"))
    assert isinstance(drawn.module, nn.Module)
    again = load(ModelRequest(model="vit_digits", weights=save_state(drawn.module, tmp_path)))
    assert again.weights_sha256 == drawn.weights_sha256
    assert (again.weights_kind, drawn.weights_kind) == ("file", "random")


def test_a_timm_id_pins_the_default_tag() -> None:
    loaded = load(ModelRequest(model="timm:test_vit", weights="random"))
    assert loaded.id == "test_vit.r160_in1k"
    assert loaded.alias is None
