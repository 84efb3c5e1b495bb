"""Every source gives a module that takes one tensor, computes what its library does, and can be captured."""

from collections.abc import Callable
from pathlib import Path

import open_clip
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from exporter.errors import ModelUnavailableError, UsageError, WeightsError
from exporter.models import LoadedModel, ModelRequest, load
from exporter.models.shipped.digits import VIT_DIGITS_WEIGHTS
from exporter.models.timm import source as timm_source
from exporter.models.timm.model import TimmModel

HFModel = Callable[[str], tuple[nn.Module, Path]]


def example_of(loaded: LoadedModel, batch: int = 2) -> torch.Tensor:
    """A seeded batch of the model's one input."""
    generator = torch.Generator().manual_seed(0)
    shape = (batch, *loaded.example_input.shape)
    if loaded.example_input.vocabulary is None:
        return torch.randn(shape, generator=generator)
    return torch.randint(0, loaded.example_input.vocabulary, shape, generator=generator)


def assert_captures(loaded: LoadedModel) -> torch.Tensor:
    """Export with a free batch, compare at another batch, and return the eager output for that."""
    module = loaded.module
    assert isinstance(module, nn.Module)
    shapes = ({0: torch.export.Dim("batch")},)
    with torch.no_grad():
        program = torch.export.export(module, (example_of(loaded),), dynamic_shapes=shapes)
        three = example_of(loaded, batch=3)
        output: torch.Tensor = module(three)
        torch.testing.assert_close(program.module()(three), output, rtol=1e-5, atol=1e-5)
    return output


@pytest.mark.parametrize(
    ("family", "output_name", "pick"),
    [
        pytest.param("vit", "logits", lambda model, x: model(x).logits, id="ViT"),
        pytest.param("deit", "logits", lambda model, x: model(x).logits, id="DeiT"),
        pytest.param("deit_distilled", "logits", lambda model, x: model(x).logits, id="distilled DeiT"),
        pytest.param(
            "vit_headless",
            "features",
            lambda model, x: model(x).last_hidden_state[:, 0],
            id="ViT without head",
        ),
        pytest.param("dinov2", "features", lambda model, x: model(x).pooler_output, id="DINOv2"),
        pytest.param(
            "dinov2_registers",
            "features",
            lambda model, x: model(x).pooler_output,
            id="DINOv2 with registers",
        ),
        pytest.param(
            "clip",
            "embedding",
            lambda model, x: model.visual_projection(model.vision_model(x).pooler_output),
            id="CLIP",
        ),
        pytest.param(
            "siglip", "embedding", lambda model, x: model.vision_model(x).pooler_output, id="SigLIP"
        ),
    ],
)
def test_an_hf_folder_computes_what_the_saved_model_does(
    family: str,
    output_name: str,
    pick: Callable[[nn.Module, torch.Tensor], torch.Tensor],
    hf_model: HFModel,
) -> None:
    model, folder = hf_model(family)
    loaded = load(ModelRequest(model=f"hf:{folder}"))
    output = assert_captures(loaded)
    with torch.no_grad():
        torch.testing.assert_close(output, pick(model, example_of(loaded, batch=3)), rtol=1e-5, atol=1e-5)
    assert loaded.output_names == (output_name,)
    assert (next(iter(loaded.inputs)), loaded.source, loaded.name, loaded.id) == (
        "images",
        "hf",
        family,
        family,
    )
    assert loaded.proportional_attention


@pytest.mark.parametrize(
    ("family", "pick"),
    [
        pytest.param(
            "clip", lambda model, x: model.text_projection(model.text_model(x).pooler_output), id="CLIP"
        ),
        pytest.param("siglip", lambda model, x: model.text_model(x).pooler_output, id="SigLIP"),
    ],
)
def test_an_hf_text_tower_embeds_token_ids(
    family: str, pick: Callable[[nn.Module, torch.Tensor], torch.Tensor], hf_model: HFModel
) -> None:
    model, folder = hf_model(family)
    loaded = load(ModelRequest(model=f"hf:{folder}", tower="text"))
    output = assert_captures(loaded)
    with torch.no_grad():
        torch.testing.assert_close(output, pick(model, example_of(loaded, batch=3)), rtol=1e-5, atol=1e-5)
    assert loaded.example_input.shape == (16,)
    assert (loaded.example_input.vocabulary, loaded.example_input.dtype) == (99, torch.int64)
    assert (next(iter(loaded.inputs)), loaded.preprocess, loaded.name) == (
        "input_ids",
        None,
        f"{family}-text",
    )


def test_mae_weights_turn_proportional_attention_off(hf_model: HFModel) -> None:
    _, folder = hf_model("vit_mae")
    loaded = load(ModelRequest(model=f"hf:{folder}"))
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
    _, folder = hf_model("clip")
    request = {"model": f"hf:{folder}", "tower": tower}
    from_file = load(ModelRequest(weights=str(folder / "model.safetensors"), **request))  # type: ignore[arg-type]
    assert from_file.weights_sha256 == load(ModelRequest(**request)).weights_sha256  # type: ignore[arg-type]


def test_hf_weights_of_another_architecture_are_listed(hf_model: HFModel) -> None:
    _, vit = hf_model("vit")
    _, clip = hf_model("clip")
    with pytest.raises(WeightsError, match=r"missing: classifier\.bias.* unexpected: logit_scale"):
        load(ModelRequest(model=f"hf:{vit}", weights=str(clip / "model.safetensors")))


def test_hf_weights_of_another_shape_are_listed(hf_model: HFModel, tmp_path: Path) -> None:
    model, folder = hf_model("vit")
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(state | {"classifier.weight": torch.zeros(9, 32)}, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="mis-shaped"):
        load(ModelRequest(model=f"hf:{folder}", weights=str(tmp_path / "w.safetensors")))


@pytest.mark.parametrize("family", ["vit", "deit_distilled", "dinov2_registers", "clip", "siglip"])
def test_hf_positions_are_resampled_for_another_image_size(family: str, hf_model: HFModel) -> None:
    _, folder = hf_model(family)
    loaded = load(ModelRequest(model=f"hf:{folder}", image_size=48))
    assert loaded.example_input.shape == (3, 48, 48)
    assert loaded.preprocess is not None
    assert loaded.preprocess.image_size == (48, 48)
    assert_captures(loaded)


def test_hf_resampling_agrees_with_the_librarys_own(hf_model: HFModel) -> None:
    model, folder = hf_model("vit")
    loaded = load(ModelRequest(model=f"hf:{folder}", image_size=48))
    images = example_of(loaded)
    assert isinstance(loaded.module, nn.Module)
    with torch.no_grad():
        expected = model(images, interpolate_pos_encoding=True).logits
        torch.testing.assert_close(loaded.module(images), expected, rtol=1e-4, atol=1e-5)


def test_an_hf_size_that_patches_do_not_tile_is_refused(hf_model: HFModel) -> None:
    _, folder = hf_model("vit")
    with pytest.raises(UsageError, match="expected a multiple of its patch size 8, got 33; use 32 or 40"):
        load(ModelRequest(model=f"hf:{folder}", image_size=33))


def test_an_hf_model_without_text_tower_is_refused(hf_model: HFModel) -> None:
    _, folder = hf_model("dinov2")
    with pytest.raises(UsageError, match="no text tower"):
        load(ModelRequest(model=f"hf:{folder}", tower="text"))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        pytest.param(None, "no config.json", id="no configuration"),
        pytest.param("{", "not valid JSON", id="damaged configuration"),
        pytest.param(
            '{"model_type": "bert", "architectures": ["BertModel"]}', "expected ViT", id="not an image model"
        ),
        pytest.param(
            '{"model_type": "dinov2", "architectures": ["Dinov2Model"]}', "has no weights", id="no weights"
        ),
    ],
)
def test_a_folder_that_is_no_checkpoint_is_refused(config: str | None, expected: str, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    if config is not None:
        (folder / "config.json").write_text(config)
    with pytest.raises(ModelUnavailableError, match=expected):
        load(ModelRequest(model=f"hf:{folder}"))


@pytest.mark.parametrize(
    ("model", "image_size", "output_name", "width"),
    [
        pytest.param("timm:test_vit", None, "logits", 1000, id="timm ViT"),
        pytest.param("timm:test_vit", 96, "logits", 1000, id="timm ViT at another size"),
        pytest.param("timm:test_vit2", None, "logits", 1000, id="timm ViT with a register"),
        pytest.param("deit_ti16_distilled", 32, "logits", 1000, id="distilled DeiT"),
        pytest.param("torchvision:vit_b_32", 64, "logits", 1000, id="torchvision"),
    ],
)
def test_registry_models_capture_with_random_weights(
    model: str, image_size: int | None, output_name: str, width: int
) -> None:
    loaded = load(ModelRequest(model=model, weights="random", image_size=image_size))
    assert assert_captures(loaded).shape == (3, width)
    assert loaded.output_names == (output_name,)
    assert loaded.preprocess is not None
    assert (3, *loaded.preprocess.image_size) == loaded.example_input.shape
    assert (loaded.weights_kind, loaded.weights_tag) == ("random", None)


@pytest.mark.parametrize("tower", ["image", "text"])
def test_open_clip_towers_compute_what_the_library_does(
    tower: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("open_clip.factory._MODEL_CONFIGS", {"tiny": _TINY_CLIP})
    clip = open_clip.create_model("tiny", device="cpu").eval()
    save_file(clip.state_dict(), tmp_path / "w.safetensors")
    loaded = load(
        ModelRequest(model="open_clip:tiny", weights=str(tmp_path / "w.safetensors"), tower=tower)  # type: ignore[arg-type]
    )
    drawn = load(ModelRequest(model="open_clip:tiny", weights="random", tower=tower))  # type: ignore[arg-type]
    assert drawn.example_input == loaded.example_input
    output = assert_captures(loaded)
    inputs = example_of(loaded, batch=3)
    with torch.no_grad():
        expected = clip.encode_image(inputs) if tower == "image" else clip.encode_text(inputs)
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-5)


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
    assert assert_captures(loaded).shape == (3, 10)


def test_vit_digits_takes_random_weights_and_files(tmp_path: Path) -> None:
    drawn = load(ModelRequest(model="vit_digits", weights="random"))
    assert isinstance(drawn.module, nn.Module)
    save_file(drawn.module.state_dict(), tmp_path / "w.safetensors")
    again = load(ModelRequest(model="vit_digits", weights=str(tmp_path / "w.safetensors")))
    assert again.weights_sha256 == drawn.weights_sha256
    assert (again.weights_kind, drawn.weights_kind) == ("file", "random")


def test_a_timm_id_pins_the_default_tag() -> None:
    loaded = load(ModelRequest(model="timm:test_vit", weights="random"))
    assert loaded.id == "test_vit.r160_in1k"
    assert loaded.alias is None
