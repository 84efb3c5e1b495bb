"""Fine-tuned files of torchvision: what differs from the registry is taken from them, and the outputs are its own."""

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn
from torchvision.models import VisionTransformer
from torchvision.models.vision_transformer import interpolate_embeddings

from exporter.errors import UsageError, WeightsError
from exporter.models import ModelRequest, load
from exporter.models.preprocessing.file import GIVEN, GUESSED
from exporter.models.torchvision import file as torchvision_file
from exporter.models.weights import redraw_constant_parameters
from tests.support.loaded_models import assert_captures, assert_computes, save_state

NAME = "vit_b_32"
_TINY: dict[str, Any] = {"patch_size": 32, "num_layers": 2, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 64}


def tiny(**arguments: Any) -> VisionTransformer:
    """What the library's `vit_b_32` is, but small."""
    torch.manual_seed(3)
    vit = tiny_with(arguments)
    redraw_constant_parameters(vit)
    return vit.eval()


def tiny_with(arguments: Mapping[str, Any]) -> VisionTransformer:
    return VisionTransformer(**_TINY, **{"image_size": 224, **arguments})


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every `vit_b_32` that is built in these tests is small."""

    def get_model(name: str, weights: object = None, **arguments: Any) -> nn.Module:
        if name != NAME:
            other: nn.Module = torchvision.models.get_model(name, weights=weights, **arguments)
            return other
        vit: nn.Module = tiny_with(arguments)
        return vit

    monkeypatch.setattr(torchvision_file, "get_model", get_model)


def _heads(heads: nn.Module) -> Callable[[VisionTransformer], None]:
    def replace(vit: VisionTransformer) -> None:
        vit.heads = heads

    return replace


@pytest.mark.parametrize(
    ("arguments", "change", "note", "output"),
    [
        pytest.param({"num_classes": 10}, None, "num_classes=10 taken", "logits", id="ten classes"),
        pytest.param(
            {"representation_size": 16}, None, "representation_size=16", "logits", id="before the logits"
        ),
        pytest.param({"image_size": 160}, None, "image_size=160", "logits", id="160 pixels"),
        pytest.param({"num_classes": 3, "image_size": 96}, None, "num_classes=3", "logits", id="both"),
        pytest.param({}, _heads(nn.Identity()), "num_classes=0", "features", id="no head"),
        pytest.param(
            {}, _heads(nn.Linear(32, 6)), "read as those of heads.head", "logits", id="one layer as the head"
        ),
    ],
)
def test_free_parameters_are_taken_from_the_file(
    arguments: Mapping[str, Any],
    change: Callable[[VisionTransformer], None] | None,
    note: str,
    output: str,
    tmp_path: Path,
) -> None:
    module = tiny(**arguments)
    if change:
        change(module)
    loaded = load(ModelRequest(model=f"torchvision:{NAME}", weights=save_state(module, tmp_path)))
    assert_computes(loaded, module)
    assert note in "; ".join(loaded.notes)
    assert loaded.output_names == (output,)
    assert loaded.preprocess is not None
    assert loaded.preprocess.image_size == loaded.example_input.shape[1:]
    assert loaded.class_names is None


def test_a_file_of_references_training_is_read(tmp_path: Path) -> None:
    module = tiny(num_classes=4)
    averaged = {f"module.{name}": tensor for name, tensor in module.state_dict().items()}
    content = {
        "model": tiny().state_dict(),
        "model_ema": averaged | {"n_averaged": torch.tensor(2)},
        "epoch": 1,
    }
    torch.save(content, tmp_path / "checkpoint.pth")
    loaded = load(ModelRequest(model=f"torchvision:{NAME}", weights=str(tmp_path / "checkpoint.pth")))
    assert_computes(loaded, module)
    assert "left out: model, epoch" in loaded.notes[0]


@pytest.mark.parametrize(("own", "asked"), [(224, 96), (96, 224), (160, 64)])
def test_another_image_size_is_resampled_as_torchvision_does(own: int, asked: int, tmp_path: Path) -> None:
    module = tiny(image_size=own, num_classes=4)
    loaded = load(
        ModelRequest(model=f"torchvision:{NAME}", weights=save_state(module, tmp_path), image_size=asked)
    )
    theirs = tiny(image_size=asked, num_classes=4)
    theirs.load_state_dict(interpolate_embeddings(asked, 32, OrderedDict(module.state_dict())))
    assert_computes(loaded, theirs)
    assert f"resampled from {own} to {asked} pixels" in "; ".join(loaded.notes)


def test_a_file_that_fits_as_it_is_has_notes_of_what_it_does_not_tell(tmp_path: Path) -> None:
    file = save_state(tiny(), tmp_path)
    loaded = load(ModelRequest(model=f"torchvision:{NAME}", weights=file))
    photos, classes = loaded.notes
    assert photos == f"{GUESSED}: that of vit_b_32/IMAGENET1K_V1; give --preprocess FILE.json to say it"
    assert "not taken for those of ImageNet" in classes
    given = tmp_path / "given.json"
    given.write_text('{"image_size": 224, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}')
    loaded = load(ModelRequest(model=f"torchvision:{NAME}", weights=file, preprocess=str(given)))
    assert loaded.notes == (classes, GIVEN)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "expected"),
    [
        pytest.param({"num_classes": 9}, {"num_classes": 5}, UsageError, "num_classes=9 there", id="classes"),
        pytest.param({"image_size": 96}, {"image_size": 224}, UsageError, "image_size=96 there", id="size"),
        pytest.param({}, {"representation_size": 8}, UsageError, "contradicts", id="before the logits"),
        pytest.param({}, {"num_clases": 8}, UsageError, 'Did you mean "num_classes"', id="misspelled"),
        pytest.param({}, {"hidden_dim": 8}, UsageError, "no such option", id="what the name says"),
        pytest.param({}, {"image_size": (96, 160)}, UsageError, "square images only", id="not square"),
        pytest.param({"patch_size": 16}, {}, WeightsError, "patch expected 32, got 16", id="patch"),
        pytest.param({"num_layers": 3}, {}, WeightsError, "blocks expected 2, got 3", id="blocks"),
        pytest.param({"hidden_dim": 64}, {}, WeightsError, "width expected 32, got 64", id="width"),
    ],
)
def test_what_does_not_go_together_is_refused(
    arguments: Mapping[str, Any],
    options: Mapping[str, Any],
    error: type[Exception],
    expected: str,
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    module = VisionTransformer(**{"image_size": 224, **_TINY, **arguments})
    with pytest.raises(error, match=re.escape(expected)):
        load(ModelRequest(model=f"torchvision:{NAME}", weights=save_state(module, tmp_path), options=options))


def test_a_head_of_several_layers_is_refused_by_name(tmp_path: Path) -> None:
    module = tiny()
    _heads(nn.Sequential(nn.Linear(32, 8), nn.ReLU(), nn.Linear(8, 3)))(module)
    with pytest.raises(WeightsError, match=r"unexpected: heads\.0\.bias.*only the head differs"):
        load(ModelRequest(model=f"torchvision:{NAME}", weights=save_state(module, tmp_path)))


def test_a_size_that_is_not_square_is_refused(tmp_path: Path) -> None:
    weights = save_state(tiny(), tmp_path)
    with pytest.raises(UsageError, match="square images only"):
        load(ModelRequest(model=f"torchvision:{NAME}", weights=weights, image_size=(64, 96)))


def test_options_shape_random_weights() -> None:
    options = {"num_classes": 4, "image_size": 96, "representation_size": 8}
    loaded = load(ModelRequest(model=f"torchvision:{NAME}", weights="random", options=options))
    assert loaded.example_input.shape == (3, 96, 96)
    assert isinstance(loaded.module, nn.Module)
    assert loaded.module(torch.zeros(2, 3, 96, 96)).shape == (2, 4)
    assert_captures(loaded)
    with pytest.raises(UsageError, match="leave one out"):
        load(ModelRequest(model=f"torchvision:{NAME}", weights="random", image_size=64, options=options))


@pytest.mark.parametrize(("model", "classes"), [("resnet18", 3), ("mobilenet_v3_small", 5)])
def test_other_classifiers_take_their_number_of_classes_from_the_file(
    model: str, classes: int, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    module = torchvision.models.get_model(model, weights=None, num_classes=classes).eval()
    loaded = load(ModelRequest(model=f"torchvision:{model}", weights=save_state(module, tmp_path)))
    assert_computes(loaded, module)
    assert f"num_classes={classes}" in "; ".join(loaded.notes)


def test_pretrained_weights_name_their_classes_and_leave_nothing_random(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    theirs = tiny()
    own = torchvision.models.ViT_B_32_Weights.DEFAULT
    monkeypatch.setattr(
        type(own), "get_state_dict", lambda *_args, **_kwargs: OrderedDict(theirs.state_dict())
    )
    loaded = load(ModelRequest(model=f"torchvision:{NAME}"))
    assert_computes(loaded, theirs)
    assert loaded.class_names is not None
    assert [names[0] for names in loaded.class_names] == own.meta["categories"]
    assert loaded.class_names[0] == ("tench", "Tinca tinca", "n01440764")
    headless = load(ModelRequest(model=f"torchvision:{NAME}", options={"num_classes": 0}))
    _heads(nn.Identity())(theirs)
    assert_computes(headless, theirs)
    assert (headless.output_names, headless.class_names) == (("features",), None)
    with pytest.raises(UsageError, match=r"no pretrained values for heads\.head"):
        load(ModelRequest(model=f"torchvision:{NAME}", options={"num_classes": 10}))


def test_the_librarys_own_names_are_suggested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with torch.device("meta"):
        shapes = torchvision.models.vit_b_16().state_dict()
    save_file(
        {name: torch.zeros(tensor.shape) for name, tensor in shapes.items()}, tmp_path / "w.safetensors"
    )
    with pytest.raises(WeightsError, match='Did you mean "torchvision:vit_b_16"'):
        load(ModelRequest(model=f"torchvision:{NAME}", weights=str(tmp_path / "w.safetensors")))
