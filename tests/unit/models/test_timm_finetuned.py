"""Fine-tuned files of timm: what differs from the registry is taken from them, and the outputs are timm's own."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.data.model_config import resolve_input_data_config
from torch import nn

from exporter.errors import UsageError, WeightsError
from exporter.models import ModelRequest, load
from exporter.models.preprocessing.file import GUESSED
from exporter.models.weights import redraw_constant_parameters
from tests.support.loaded_models import assert_computes, example_of, save_state

NAME = "test_vit"  # of timm's registry: 64 channels, 160 pixels, patches of 16
DISTILLED = "deit_tiny_distilled_patch16_224"


def trained(name: str = NAME, **arguments: Any) -> nn.Module:
    """A model of timm's own function, with weights that make every parameter count."""
    torch.manual_seed(1)
    module: nn.Module = timm.create_model(name, **arguments)
    redraw_constant_parameters(module)
    return module.eval()


@pytest.mark.parametrize(
    ("arguments", "options", "note"),
    [
        pytest.param({"num_classes": 10}, {}, "num_classes=10 taken from the weights", id="ten classes"),
        pytest.param({"num_classes": 0}, {}, "num_classes=0", id="no head"),
        pytest.param(
            {"num_classes": 10, "global_pool": "avg"}, {}, "num_classes=10, global_pool=avg", id="average"
        ),
        pytest.param({"global_pool": "max"}, {"global_pool": "max"}, "", id="maximum, said"),
        pytest.param(
            {"global_pool": "avg", "fc_norm": False}, {"global_pool": "avg"}, "fc_norm=false", id="norm first"
        ),
        pytest.param(
            {"global_pool": "token", "fc_norm": True}, {"global_pool": "token"}, "fc_norm", id="norm last"
        ),
        pytest.param({"num_classes": 7, "global_pool": "map"}, {}, "global_pool=map", id="attention pooling"),
        pytest.param({"img_size": 96}, {}, "image size 96 taken from the weights", id="96 pixels"),
        pytest.param(
            {"img_size": (96, 160)}, {"img_size": (96, 160)}, "image size 96x160", id="not square, said"
        ),
        pytest.param(
            {"class_token": False, "global_pool": "avg"}, {}, "class_token=false", id="no class token"
        ),
        pytest.param(
            {"class_token": False, "global_pool": "avg", "fc_norm": False},
            {},
            "class_token=false",
            id="no token, norm",
        ),
        pytest.param({"reg_tokens": 4}, {}, "reg_tokens=4", id="registers"),
        pytest.param(
            {"reg_tokens": 4, "no_embed_class": True}, {}, "no_embed_class=true", id="registers, unplaced"
        ),
        pytest.param({"no_embed_class": True}, {}, "no_embed_class=true", id="class token, unplaced"),
        pytest.param({"qk_norm": True}, {}, "qk_norm=true", id="qk-norm"),
        pytest.param({"init_values": 1e-5}, {}, "LayerScale=true", id="LayerScale"),
        pytest.param({"qkv_bias": False}, {}, "qkv_bias=false", id="no qkv bias"),
        pytest.param({"proj_bias": False}, {}, "proj_bias=false", id="no bias after attention"),
        pytest.param({"pre_norm": True}, {}, "pre_norm=true", id="norm before the blocks"),
        pytest.param({"final_norm": False}, {}, "final_norm=false", id="no norm after them"),
        pytest.param({"pos_embed": "none"}, {}, "pos_embed=none", id="no positions"),
        pytest.param({"in_chans": 1, "num_classes": 3}, {}, "in_chans=1", id="one channel"),
        pytest.param({"in_chans": 4}, {}, "in_chans=4", id="four channels"),
        pytest.param({"depth": 2}, {"depth": 2}, "", id="fewer blocks, said"),
        pytest.param({"dynamic_img_size": True}, {"dynamic_img_size": True}, "", id="any image size"),
        pytest.param(
            {"num_classes": 6, "global_pool": "avg", "reg_tokens": 2, "img_size": 64, "init_values": 1e-4},
            {},
            "num_classes=6",
            id="all at once",
        ),
    ],
)
def test_free_parameters_are_taken_from_the_file(
    arguments: Mapping[str, Any], options: Mapping[str, Any], note: str, tmp_path: Path
) -> None:
    module = trained(**arguments)
    loaded = load(ModelRequest(model=f"timm:{NAME}", weights=save_state(module, tmp_path), options=options))
    assert_computes(loaded, module)
    assert note in "; ".join(loaded.notes)
    assert loaded.output_names == ("features" if arguments.get("num_classes") == 0 else "logits",)
    assert loaded.preprocess is not None
    assert loaded.preprocess.image_size == loaded.example_input.shape[1:]
    assert all(str(tmp_path) not in each for each in loaded.notes)


def test_a_file_of_a_hybrid_keeps_its_size(tmp_path: Path) -> None:
    name = "vit_tiny_r_s16_p8_224"
    module = trained(name, num_classes=3, img_size=64)
    loaded = load(ModelRequest(model=f"timm:{name}", weights=save_state(module, tmp_path)))
    assert_computes(loaded, module)
    assert loaded.example_input.shape == (3, 64, 64)


@pytest.mark.parametrize("classes", [0, 5])
def test_a_distilled_file_keeps_both_heads(classes: int, tmp_path: Path) -> None:
    module = trained(DISTILLED, num_classes=classes, img_size=32)
    loaded = load(ModelRequest(model=f"timm:{DISTILLED}", weights=save_state(module, tmp_path)))
    assert_computes(loaded, module)
    assert loaded.example_input.shape == (3, 32, 32)


def test_a_file_that_fits_as_it_is_has_notes_of_what_it_does_not_tell(tmp_path: Path) -> None:
    loaded = load(ModelRequest(model=f"timm:{NAME}", weights=save_state(trained(), tmp_path)))
    pooling, photos, classes = loaded.notes
    assert pooling.startswith("global_pool=token is the default of test_vit")
    assert photos == f"{GUESSED}: that of test_vit.r160_in1k; give --preprocess FILE.json to say it"
    assert "not taken for those of ImageNet" in classes
    assert loaded.class_names is None


@pytest.mark.parametrize(
    ("name", "options", "is_said"),
    [
        pytest.param("vit_base_patch32_clip_224", {}, True, id="a twin"),
        pytest.param("vit_base_patch32_clip_224", {"act_layer": "gelu"}, False, id="said"),
        pytest.param("vit_base_patch32_clip_quickgelu_224", {}, False, id="the twin"),
    ],
)
def test_an_activation_that_a_file_does_not_tell_is_said(
    name: str, options: dict[str, Any], is_said: bool, tmp_path: Path
) -> None:
    small = {"depth": 1, "embed_dim": 32, "num_heads": 2}
    file = save_state(trained(name, **small), tmp_path)
    notes = load(ModelRequest(model=f"timm:{name}", weights=file, options=small | options)).notes
    assert any("the twin vit_base_patch32_clip_quickgelu_224 has" in note for note in notes) == is_said


@pytest.mark.parametrize(
    ("name", "options"),
    [
        pytest.param("cait_xxs24_224", {"depth": 1, "depth_token_only": 1}, id="a late class token"),
        pytest.param("convit_tiny", {"depth": 3}, id="gated"),
    ],
)
def test_other_architectures_are_built_from_a_file_as_timm_does(
    name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    module = trained(name, **options)
    loaded = load(ModelRequest(model=f"timm:{name}", weights=save_state(module, tmp_path), options=options))
    assert loaded.example_input.shape == (3, 224, 224)
    assert_computes(loaded, module)


@pytest.mark.parametrize(
    ("own", "asked"),
    [
        pytest.param(160, 96, id="smaller"),
        pytest.param(96, 160, id="the registry's from another"),
        pytest.param(160, (96, 160), id="not square from a square"),
        pytest.param((96, 160), (160, 64), id="not square from not square"),
    ],
)
def test_another_image_size_is_resampled_as_timm_does(
    own: int | tuple[int, int], asked: int | tuple[int, int], tmp_path: Path
) -> None:
    module = trained(img_size=own, num_classes=4)
    options = {} if isinstance(own, int) else {"img_size": own}
    loaded = load(
        ModelRequest(
            model=f"timm:{NAME}", weights=save_state(module, tmp_path), image_size=asked, options=options
        )
    )
    theirs: Any = trained(img_size=own, num_classes=4)
    theirs.set_input_size(img_size=asked)
    assert_computes(loaded, theirs)
    assert "resampled from" in "; ".join(loaded.notes)
    assert loaded.preprocess is not None
    assert loaded.preprocess.image_size == ((asked, asked) if isinstance(asked, int) else asked)


def test_one_channel_at_another_image_size_has_no_warning_of_the_library(tmp_path: Path) -> None:
    weights = save_state(trained(in_chans=1), tmp_path)
    loaded = load(ModelRequest(model=f"timm:{NAME}", weights=weights, image_size=96))
    assert loaded.example_input.shape == (1, 96, 96)
    assert "warns" not in "; ".join(loaded.notes)


def test_a_table_that_is_no_square_needs_its_size(tmp_path: Path) -> None:
    weights = save_state(trained(img_size=(96, 160)), tmp_path)
    with pytest.raises(WeightsError, match=r"61 rows.*img_size=HEIGHT,WIDTH"):
        load(ModelRequest(model=f"timm:{NAME}", weights=weights))
    assert load(ModelRequest(model=f"timm:{NAME}", weights=weights, image_size=(96, 160))).notes[-1:] != ()


def test_a_square_table_asked_for_as_another_grid_is_said(tmp_path: Path) -> None:
    weights = save_state(trained(img_size=64), tmp_path)
    loaded = load(ModelRequest(model=f"timm:{NAME}", weights=weights, image_size=(32, 128)))
    assert "read as that of images of 64 pixels" in "; ".join(loaded.notes)


@pytest.mark.parametrize(
    ("arguments", "options", "expected"),
    [
        pytest.param(
            {"num_classes": 10}, {"num_classes": 5}, "num_classes=5 .*num_classes=10 there", id="classes"
        ),
        pytest.param(
            {}, {"global_pool": "map"}, "global_pool=map .*global_pool=token there", id="no attention pooling"
        ),
        pytest.param(
            {"global_pool": "map"}, {"global_pool": "avg"}, "=avg .*global_pool=map there", id="pooling"
        ),
        pytest.param(
            {"reg_tokens": 4}, {"reg_tokens": 0}, "reg_tokens=0 .*reg_tokens=4 there", id="registers"
        ),
        pytest.param({}, {"init_values": 1e-5}, "contradicts", id="LayerScale"),
        pytest.param({}, {"qk_norm": True}, "qk_norm=true .*qk_norm=false there", id="qk-norm"),
        pytest.param(
            {}, {"class_token": False}, "class_token=false .*class_token=true there", id="class token"
        ),
        pytest.param({}, {"img_size": 96}, "img_size=96 contradicts .* 101 rows", id="image size"),
        pytest.param({}, {"in_chans": 1}, "in_chans=1 .*in_chans=3 there", id="channels"),
        pytest.param({}, {"patch_size": 8}, "patch_size=8 .*patch_size=16,16 there", id="patch"),
        pytest.param({}, {"depth": 3}, "depth=3 .*depth=6 there", id="blocks"),
    ],
)
def test_an_option_that_contradicts_the_file_is_refused_with_both_values(
    arguments: Mapping[str, Any], options: Mapping[str, Any], expected: str, tmp_path: Path
) -> None:
    weights = save_state(trained(**arguments), tmp_path)
    with pytest.raises(UsageError, match=expected) as caught:
        load(ModelRequest(model=f"timm:{NAME}", weights=weights, options=options))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param({"num_clases": 5}, 'no such option.*Did you mean "num_classes"', id="misspelled"),
        pytest.param({"embed_layer": "x"}, "no such option", id="a class"),
        pytest.param({"num_classes": -1}, "expected a whole number", id="negative"),
        pytest.param({"num_classes": True}, "expected a whole number", id="not a number"),
        pytest.param({"class_token": 1}, "expected true or false", id="not a truth value"),
        pytest.param({"global_pool": 3}, "expected a word", id="not a word"),
        pytest.param({"img_size": (1, 2, 3)}, "expected a size", id="three sides"),
        pytest.param({"img_size": 0}, "from 1 to", id="no pixels"),
        pytest.param({"depth": 2.5}, "from 1 to", id="half a block"),
    ],
)
def test_an_option_that_means_nothing_is_refused(options: Mapping[str, Any], expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        load(ModelRequest(model=f"timm:{NAME}", weights="random", options=options))


@pytest.mark.parametrize(
    "options",
    [{"global_pool": "median"}, {"num_heads": 7}, {"class_token": False}, {"act_layer": "none such"}],
    ids=str,
)
def test_what_the_library_does_not_build_is_refused_with_its_reason(options: Mapping[str, Any]) -> None:
    with pytest.raises(UsageError, match="cannot be built with"):
        load(ModelRequest(model=f"timm:{NAME}", weights="random", options=options))


def test_options_shape_random_weights() -> None:
    options: dict[str, Any] = {"num_classes": 4, "global_pool": "avg", "in_chans": 1, "img_size": 96}
    loaded = load(ModelRequest(model=f"timm:{NAME}", weights="random", options=options))
    assert loaded.example_input.shape == (1, 96, 96)
    assert isinstance(loaded.module, nn.Module)
    assert loaded.module(example_of(loaded)).shape == (2, 4)
    assert loaded.module.get_parameter("fc_norm.weight").shape == (64,)


def test_two_image_sizes_contradict_each_other() -> None:
    with pytest.raises(UsageError, match="--image-size 64 contradicts --model-option img_size=96"):
        load(ModelRequest(model=f"timm:{NAME}", weights="random", image_size=64, options={"img_size": 96}))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param({"num_classes": 10}, "no pretrained values for head.weight", id="another head"),
        pytest.param({"reg_tokens": 4}, "no pretrained values for reg_token", id="registers"),
        pytest.param({"global_pool": "avg"}, "no pretrained values for fc_norm", id="pooling with its norm"),
        pytest.param({"qkv_bias": False}, "would leave out blocks.0.attn.qkv.bias", id="fewer parameters"),
    ],
)
def test_pretrained_weights_leave_nothing_random(options: Mapping[str, Any], expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        load(ModelRequest(model=f"timm:{NAME}", options=options))


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        pytest.param(
            "vit_base_patch16_224", {"embed_dim": 192}, 'Did you mean "timm:vit_tiny_patch16_224"', id="width"
        ),
        pytest.param("vit_tiny_patch16_224", {"depth": 4}, "blocks expected 12, got 4", id="depth"),
        pytest.param("vit_tiny_patch16_224", {"patch_size": 32}, "patch expected 16, got 32", id="patch"),
        pytest.param(
            "vit_small_patch16_224",
            {"patch_size": 32},
            'Did you mean "timm:vit_small_patch32_224"',
            id="patch, named",
        ),
    ],
)
def test_weights_of_another_architecture_are_named(
    name: str, arguments: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    with torch.device("meta"):
        shapes = timm.create_model(name, img_size=64, num_classes=2, **arguments).state_dict()
    save_file({key: torch.zeros(tensor.shape) for key, tensor in shapes.items()}, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=re.escape(expected)):
        load(ModelRequest(model=f"timm:{name}", weights=str(tmp_path / "w.safetensors")))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        pytest.param(
            ["vit.embeddings.cls_token", "vit.encoder.layer.0.x.bias"], "hf:FOLDER", id="transformers"
        ),
        pytest.param(
            ["visual.conv1.weight", "transformer.resblocks.0.ln_1.bias"], "open_clip:NAME", id="open_clip"
        ),
        pytest.param(["conv_proj.weight", "heads.head.bias"], "torchvision:NAME", id="torchvision"),
    ],
)
def test_weights_of_another_library_are_told_by_their_names(
    names: list[str], expected: str, tmp_path: Path
) -> None:
    save_file({name: torch.ones(1) for name in names}, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=expected):
        load(ModelRequest(model=f"timm:{NAME}", weights=str(tmp_path / "w.safetensors")))


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("head.weight", torch.tensor(1.0)),
        ("head.weight", torch.ones(1000)),
        ("head.weight", torch.ones(1000, 64, dtype=torch.int64)),
        ("pos_embed", torch.tensor(1.0)),
        ("pos_embed", torch.ones(2, 101, 64)),
        ("pos_embed", torch.ones(1, 0, 64)),
        ("reg_token", torch.tensor(1.0)),
        ("reg_token", torch.ones(1, 10**6, 1)),
        ("cls_token", torch.tensor(1.0)),
        ("patch_embed.proj.weight", torch.tensor(1.0)),
        ("patch_embed.proj.weight", torch.ones(64, 3, 0, 0)),
        ("blocks.999999.x", torch.ones(1)),
        ("attn_pool.x", torch.ones(1)),
        ("fc_norm.weight", torch.ones(64)),
    ],
)
def test_a_tensor_of_an_impossible_shape_is_refused(name: str, tensor: torch.Tensor, tmp_path: Path) -> None:
    torch.save(trained().state_dict() | {name: tensor}, tmp_path / "w.pt")
    with pytest.raises(WeightsError) as caught:
        load(ModelRequest(model=f"timm:{NAME}", weights=str(tmp_path / "w.pt")))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("channels", [1, 4])
def test_channels_are_normalised_as_timms_loader_does(channels: int) -> None:
    loaded = load(ModelRequest(model=f"timm:{NAME}", weights="random", options={"in_chans": channels}))
    theirs = resolve_input_data_config(timm.create_model(NAME, in_chans=channels))
    assert loaded.preprocess is not None
    assert loaded.preprocess.mean == pytest.approx(theirs["mean"])
    assert loaded.preprocess.std == pytest.approx(theirs["std"])
    assert "average" in "; ".join(loaded.notes)


def test_channels_that_no_photo_has_leave_preprocessing_out() -> None:
    loaded = load(ModelRequest(model=f"timm:{NAME}", weights="random", options={"in_chans": 6}))
    assert loaded.preprocess is None
    assert "6 channels" in "; ".join(loaded.notes)
