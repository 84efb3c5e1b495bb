"""Every class of transformers that is loaded by rule computes what transformers itself does, and can be captured."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from exporter.errors import ExportError, ModelUnavailableError, UsageError
from exporter.models import ModelRequest, load
from tests.support.hf_families import FAMILIES
from tests.support.loaded_models import assert_captures, assert_computes

HFModel = Callable[[str], tuple[Any, Path]]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_class_computes_what_transformers_does(name: str, hf_model: HFModel) -> None:
    model, folder = hf_model(name)
    family = FAMILIES[name]
    loaded = load(ModelRequest(model=f"hf:{folder}"))
    assert_computes(loaded, partial(family.expected, model))
    assert loaded.output_names == (family.output_name,)
    rest = [note for note in loaded.notes if not note.startswith("preprocessing guessed")]
    assert len(rest) == bool(family.note)
    assert all(family.note in note for note in rest)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("CLIPModel", id="tower with its projection"),
        pytest.param("CLIPForImageClassification", id="classifier with a sub-configuration"),
        pytest.param("ChineseCLIPModel", id="whole model, called by get_image_features"),
        pytest.param("BlipForConditionalGeneration", id="part of a model, attention of matrix products"),
        pytest.param("DINOv3ViTModel", id="rotary positions"),
        pytest.param("BeitModel", id="relative positions"),
        pytest.param("IJepaModel", id="mean of tokens"),
    ],
)
def test_every_way_to_call_a_class_can_be_captured(name: str, hf_model: HFModel) -> None:
    _, folder = hf_model(name)
    assert_captures(load(ModelRequest(model=f"hf:{folder}")))


@pytest.mark.parametrize("name", ["CLIPModel", "MetaClip2Model", "SiglipModel", "CLIPSegModel"])
def test_text_towers_compute_what_transformers_does(name: str, hf_model: HFModel) -> None:
    model, folder = hf_model(name)
    loaded = load(ModelRequest(model=f"hf:{folder}", tower="text"))
    assert_computes(loaded, lambda ids: model.get_text_features(ids).pooler_output)
    assert_captures(loaded)
    assert loaded.output_names == ("embedding",)
    assert (next(iter(loaded.inputs)), loaded.example_input.shape, loaded.notes) == ("input_ids", (16,), ())


@pytest.mark.parametrize(
    ("name", "length"), [("ChineseCLIPModel", 16), ("AltCLIPModel", 14), ("BlipModel", 16)]
)
def test_a_text_tower_that_needs_a_mask_makes_it_of_the_padding(
    name: str, length: int, hf_model: HFModel
) -> None:
    model, folder = hf_model(name)
    loaded = load(ModelRequest(model=f"hf:{folder}", tower="text"))
    ids = torch.arange(2, 2 + 3 * length).reshape(3, length)
    ids[0, 5:], ids[1, 11:] = model.config.text_config.pad_token_id, model.config.text_config.pad_token_id
    mask = (ids != model.config.text_config.pad_token_id).long()
    assert isinstance(loaded.module, nn.Module)
    expected = model.get_text_features(ids, attention_mask=mask).pooler_output
    torch.testing.assert_close(loaded.module(ids), expected, rtol=1e-5, atol=1e-5)
    assert loaded.example_input.shape == (length,)


def test_a_text_tower_that_needs_a_mask_without_an_id_of_padding_is_refused(
    hf_model: HFModel, tmp_path: Path
) -> None:
    _, folder = hf_model("ChineseCLIPModel")
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["pad_token_id"] = None
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelUnavailableError, match="its configuration has no pad_token_id"):
        load(ModelRequest(model=f"hf:{tmp_path}", tower="text", weights="random"))


def config_of(name: str, **changes: Any) -> dict[str, Any]:
    """What save_pretrained writes for a class, without the weights."""
    config = getattr(transformers, name).config_class()
    return {**config.to_dict(), "architectures": [name], **changes}


@pytest.mark.parametrize(
    ("config", "error", "expected"),
    [
        pytest.param(
            config_of("ResNetForImageClassification"), None, "no image_size and patch_size", id="ResNet"
        ),
        pytest.param(config_of("ConvNextForImageClassification"), None, "stage to stage", id="ConvNext"),
        pytest.param(config_of("SwinForImageClassification"), None, "stage to stage", id="Swin"),
        pytest.param(config_of("PvtForImageClassification"), None, "stage to stage|image_size", id="PVT"),
        pytest.param(config_of("VideoMAEForVideoClassification"), None, "takes videos", id="video"),
        pytest.param(
            config_of("YolosForObjectDetection"), None, "expected ViT, .*an encoder", id="object detection"
        ),
        pytest.param(config_of("DPTForDepthEstimation"), None, "expected ViT", id="depth"),
        pytest.param(config_of("Siglip2Model"), None, "NaFlex", id="SigLIP 2 of any size"),
        pytest.param(config_of("Siglip2ForImageClassification"), None, "NaFlex", id="SigLIP 2 classifier"),
        pytest.param(config_of("GPT2Model"), None, "expected ViT", id="text only, causal"),
        pytest.param(config_of("XCLIPModel"), None, "expected ViT", id="video and text"),
        pytest.param(
            config_of("CLIPTextModelWithProjection"), UsageError, "no image tower", id="text tower for images"
        ),
        pytest.param(
            config_of("ViTModel", architectures=["CLIPModel"]),
            None,
            "contradict",
            id="class of another family",
        ),
        pytest.param(
            config_of("ViTModel", image_size=0), None, "image_size and patch_size are", id="no pixels"
        ),
        pytest.param(
            config_of("ViTModel", patch_size=[16, 16, 2]),
            None,
            "image_size and patch_size are",
            id="patches of three sides",
        ),
        pytest.param(
            config_of("ViTModel", hidden_act="glue"), None, "cannot be built", id="unknown activation"
        ),
        pytest.param(
            config_of("ViTModel", architectures=["AutoConfig"]), None, "expected ViT", id="no model"
        ),
    ],
)
def test_what_is_not_made_of_patches_is_refused_by_what_it_is(
    config: dict[str, Any], error: type[ExportError] | None, expected: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(error or ModelUnavailableError, match=expected) as caught:
        load(ModelRequest(model=f"hf:{tmp_path}", weights="random"))
    assert "\n" not in str(caught.value)
    assert "Did you mean" not in str(caught.value)


@pytest.mark.parametrize("name", ["BertModel", "ViTModel", "ViTForImageClassification"])
def test_a_text_tower_that_is_not_there_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config_of(name)))
    with pytest.raises(UsageError, match="no text tower"):
        load(ModelRequest(model=f"hf:{tmp_path}", weights="random", tower="text"))


def test_a_configuration_without_architectures_stands_for_the_plain_model_with_a_note(tmp_path: Path) -> None:
    config = config_of("ViTMSNModel", image_size=32, patch_size=8, num_hidden_layers=1)
    del config["architectures"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    loaded = load(ModelRequest(model=f"hf:{tmp_path}", weights="random"))
    assert loaded.output_names == ("features",)
    assert any(note.startswith("architecture guessed: ViTMSNModel") for note in loaded.notes)
