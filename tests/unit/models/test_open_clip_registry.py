"""Every model of open_clip's registry is built, and sees photos, as the weights of its tag were trained."""

from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, merge_preprocess_dict
from torch import nn

from exporter.errors import UsageError
from exporter.models import ModelRequest, load
from exporter.models.open_clip import source as open_clip_source
from exporter.models.open_clip.config import OpenClipModel, describe_model
from exporter.models.open_clip.source import describe_preprocess
from exporter.models.preprocessing.file import GUESSED
from exporter.models.request import resolve

QUICK = "activation: QuickGELU, as the weights {} were trained with"
NO_TAG = "activation GELU assumed; the file does not say; --model-option quick_gelu=true builds the other"
NO_TAG_QUICK = (
    "activation QuickGELU assumed; the file does not say; --model-option quick_gelu=false builds the other"
)
OPENAI = (
    "activation QuickGELU assumed, as of tag openai; the file does not say; "
    "--model-option quick_gelu=false builds the other"
)
LAION = (
    "activation GELU assumed, as of tag laion2b_e16; the file does not say; "
    "--model-option quick_gelu=true builds the other"
)
SAID = "activation: {}, as given with --model-option"


def described(model: str, **asked: Any) -> OpenClipModel:
    """What would be built; nothing is."""
    return describe_model(resolve(ModelRequest(model=f"open_clip:{model}", **asked)))


class Built(nn.Module):
    """Stands in for every model class of open_clip: keeps what it was made with."""

    def __init__(self, **configuration: Any) -> None:
        super().__init__()
        self.configuration = configuration
        self.visual = SimpleNamespace()


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> None:
    """open_clip that builds nothing and downloads nothing: `create_model` itself is its own."""
    for name in ("CLIP", "CustomTextCLIP", "CoCa"):
        monkeypatch.setattr(f"open_clip.factory.{name}", Built)
    monkeypatch.setattr("open_clip.factory.download_pretrained", lambda *_args, **_options: "weights")
    monkeypatch.setattr("open_clip.factory.load_checkpoint", lambda *_args, **_options: {})


@pytest.mark.usefixtures("library")
@pytest.mark.filterwarnings("ignore:QuickGELU mismatch")
def test_every_model_is_configured_as_its_weights_were_trained() -> None:
    """The activation is the tag's where it has one, and everything else is what `create_model` makes of the name."""
    wrong, switched = [], []
    for name, tag in open_clip.list_pretrained():
        trained = open_clip.get_pretrained_cfg(name, tag)
        own: Any = open_clip.create_model(name, pretrained=tag, pretrained_text=False)
        expected = own.configuration | {
            "quick_gelu": bool(trained.get("quick_gelu", own.configuration.get("quick_gelu")))
        }
        model = described(f"{name}/{tag}")
        ours: Any = open_clip_source._create(model, model.own_size, pretrained=tag)
        if {"quick_gelu": False} | ours.configuration != expected:
            wrong.append((name, tag))
        if expected["quick_gelu"] != bool(own.configuration.get("quick_gelu")):
            switched.append((name, tag))
            assert model.notes == (QUICK.format(tag),)
    assert wrong == []
    assert len(switched) == 27
    assert {("ViT-B-32", "openai"), ("ViT-B-16", "dfn2b"), ("ViT-H-14", "dfn5b")} <= set(switched)
    assert {("ViT-L-14", "metaclip_400m"), ("ViT-B-32", "laion400m_e32")} <= set(switched)


def test_a_tag_that_says_nothing_leaves_the_architecture_its_activation() -> None:
    model = described("roberta-ViT-B-32/laion2b_s12b_b32k")
    assert model.quick_gelu
    assert model.notes == (
        "activation: QuickGELU, as the architecture says; of the weights laion2b_s12b_b32k nothing is said",
    )


def test_every_model_sees_photos_as_its_tag_says() -> None:
    wrong = []
    for name, tag in open_clip.list_pretrained():
        model = described(f"{name}/{tag}")
        own = merge_preprocess_dict(PreprocessCfg(), open_clip.get_pretrained_cfg(name, tag))
        ours = describe_preprocess(model.preprocess, model.own_size)
        found = (ours.mean, ours.std, ours.interpolation, ours.resize_mode, ours.image_size[0])
        mode = {"shortest": "crop", "squash": "squash"}[own["resize_mode"]]
        size = open_clip.get_model_config(name)["vision_cfg"]["image_size"]
        if found != (tuple(own["mean"]), tuple(own["std"]), own["interpolation"], mode, size):
            wrong.append((name, tag))
    assert wrong == []


@pytest.mark.parametrize(
    ("model", "options", "quick_gelu", "note"),
    [
        pytest.param("ViT-B-32/openai", {}, True, OPENAI, id="a tag, a file"),
        pytest.param("ViT-B-32-quickgelu/openai", {}, True, OPENAI, id="a tag that agrees, a file"),
        pytest.param("ViT-B-32/laion2b_e16", {}, False, LAION, id="a tag that says nothing, a file"),
        pytest.param("ViT-B-32", {}, False, NO_TAG, id="no tag"),
        pytest.param("ViT-B-32-quickgelu", {}, True, NO_TAG_QUICK, id="no tag, quickgelu"),
        pytest.param("ViT-B-32", {"quick_gelu": True}, True, SAID.format("QuickGELU"), id="said"),
        pytest.param("ViT-B-32/openai", {"quick_gelu": False}, False, SAID.format("GELU"), id="said against a tag"),
        pytest.param("ViT-B-16-SigLIP/webli", {}, False, None, id="timm's tower"),
    ],
)  # fmt: skip
def test_with_a_file_the_tag_or_the_user_decides(
    model: str, options: dict[str, Any], quick_gelu: bool, note: str | None
) -> None:
    found = described(model, weights="mine.safetensors", options=options)
    assert found.quick_gelu == quick_gelu
    said = [each for each in found.notes if not each.startswith(GUESSED)]
    assert said == ([note] if note else [])


@pytest.mark.parametrize(
    ("model", "mean", "note"),
    [
        pytest.param("ViT-B-16-SigLIP", 0.5, "as all weights of ViT-B-16-SigLIP", id="SigLIP"),
        pytest.param("ViT-L-14", 0.48145466, "open_clip's defaults", id="tags that differ"),
        pytest.param("ViT-B-16-SigLIP/webli", 0.5, "as of tag webli, for the file does not say;", id="a tag"),
    ],
)
def test_how_a_file_sees_photos_is_guessed(model: str, mean: float, note: str) -> None:
    found = described(model, weights="mine.safetensors")
    assert found.preprocess["mean"][0] == mean
    guessed = [each for each in found.notes if each.startswith(GUESSED)]
    assert [note in each for each in guessed] == [True]


def test_random_weights_without_a_tag_are_as_they_were() -> None:
    found = described("ViT-B-16-SigLIP", weights="random")
    assert (found.notes, found.preprocess) == ((), asdict(PreprocessCfg()))


@pytest.mark.parametrize(
    ("model", "options", "expected"),
    [
        pytest.param(
            "ViT-B-32", {"quickgelu": True}, 'it takes quick_gelu.*Did you mean "quick_gelu"', id="name"
        ),
        pytest.param("ViT-B-32", {"x" * 500: True}, r"x\.\.\.x", id="long name"),
        pytest.param("ViT-B-32", {"quick_gelu": 1}, "quick_gelu=1: expected true or false", id="value"),
        pytest.param(
            "ViT-B-32/openai",
            {"quick_gelu": False},
            "openai were trained with QuickGELU; leave it out",
            id="against",
        ),
    ],
)
def test_an_option_that_does_not_fit_is_refused(model: str, options: dict[str, Any], expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        load(ModelRequest(model=f"open_clip:{model}", options=options))


def test_the_activation_reaches_both_towers(monkeypatch: pytest.MonkeyPatch) -> None:
    for source in ("build_random",):
        monkeypatch.setattr(open_clip_source, source, lambda build, _seed: on_meta(build))
    monkeypatch.setattr(open_clip_source, "sha256_of", lambda _state: "")
    for tower in ("image", "text"):
        request = ModelRequest(model="open_clip:ViT-B-32/openai", weights="random", tower=tower)
        module = load(request).module
        assert isinstance(module, nn.Module)
        kinds = {type(each).__name__ for each in module.modules()}
        assert "QuickGELU" in kinds
        assert "GELU" not in kinds


def on_meta(build: Any) -> nn.Module:
    """Build without values."""
    with torch.device("meta"):
        module: nn.Module = build()
        return module
