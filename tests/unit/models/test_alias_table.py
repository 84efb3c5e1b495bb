"""Every alias names something that its library has, with the geometry that the table states."""

import contextlib
import io
from typing import Any

import open_clip
import pytest
import timm
import torch

from exporter.models import Alias, aliases
from exporter.models.quiet import quiet
from exporter.models.shipped.clip_digits import ClipDigits
from exporter.models.shipped.digits import DIGITS_PREPROCESS, build_vit_digits

WANTED = {
    "vit_digits",
    "vit_fashion",
    "clip_digits",
    "vit_ti16",
    "vit_s16",
    "vit_b16",
    "vit_l16",
    "vit_l16_384",
    "vit_h14",
    "deit_ti16",
    "deit_s16",
    "deit_b16",
    "deit_ti16_distilled",
    "deit_s16_distilled",
    "deit_b16_distilled",
    "deit3_s16",
    "deit3_b16",
    "deit3_l16",
    "dinov2_s14",
    "dinov2_b14",
    "dinov2_l14",
    "dinov2_s14_reg",
    "dinov2_b14_reg",
    "dinov2_l14_reg",
    "clip_vit_b32",
    "clip_vit_b16",
    "clip_vit_l14",
    "clip_vit_l14_336",
    "siglip_b16",
}

Geometry = tuple[int, int, int, int, int]


def _of_source(source: str) -> list[Alias]:
    return [alias for alias in aliases().values() if alias.source == source]


def _stated(alias: Alias) -> Geometry:
    return alias.image_size, alias.patch_size, alias.tokens, alias.blocks, alias.width


def _timm_geometry(vit: Any) -> Geometry:
    embedding = vit.patch_embed
    tokens = embedding.num_patches + vit.num_prefix_tokens
    return embedding.img_size[0], embedding.patch_size[0], tokens, len(vit.blocks), vit.embed_dim


def test_the_models_that_people_deploy_have_an_alias() -> None:
    assert set(aliases()) == WANTED


@pytest.mark.parametrize("alias", _of_source("timm"), ids=lambda alias: alias.name)
def test_timm_has_the_pinned_weights_and_the_geometry(alias: Alias) -> None:
    full_name = f"{alias.id}.{alias.weights}"
    assert full_name in timm.list_models(pretrained=True)
    with torch.device("meta"):
        vit = timm.create_model(full_name)
    assert _timm_geometry(vit) == _stated(alias)
    config: Any = timm.get_pretrained_cfg(full_name)
    assert config.input_size == (3, alias.image_size, alias.image_size)


@pytest.mark.parametrize("alias", _of_source("open_clip"), ids=lambda alias: alias.name)
def test_open_clip_has_the_pinned_weights_and_the_geometry(alias: Alias) -> None:
    assert alias.weights in open_clip.list_pretrained_tags_by_model(alias.id)
    config = open_clip.get_model_config(alias.id)
    trained_with = open_clip.get_pretrained_cfg(alias.id, alias.weights).get("quick_gelu", False)
    assert config.get("quick_gelu", False) == trained_with
    with quiet(), torch.device("meta"):
        visual = open_clip.create_model(alias.id, device="meta", load_weights=False).visual
    if "timm_model_name" in config["vision_cfg"]:
        assert _timm_geometry(visual.trunk) == _stated(alias)
    else:
        tokens, width = visual.positional_embedding.shape
        blocks = len(visual.transformer.resblocks)
        assert (visual.image_size[0], visual.patch_size[0], tokens, blocks, width) == _stated(alias)


def test_vit_digits_has_the_stated_geometry() -> None:
    with torch.device("meta"):
        assert _timm_geometry(build_vit_digits()) == _stated(aliases()["vit_digits"])
    assert DIGITS_PREPROCESS.image_size == (32, 32)


def test_clip_digits_has_the_stated_geometry() -> None:
    with torch.device("meta"):
        assert _timm_geometry(ClipDigits().image) == _stated(aliases()["clip_digits"])


def test_the_published_merging_figures_are_reproducible_with_the_pinned_weights() -> None:
    published = ("vit_ti16", "vit_s16", "vit_b16", "vit_l16", "vit_l16_384")
    assert {aliases()[name].weights for name in published} == {"augreg_in21k_ft_in1k"}


def test_building_quietly_prints_nothing_and_leaves_logging_alone() -> None:
    import logging

    handlers = list(logging.getLogger().handlers)
    printed = io.StringIO()
    with contextlib.redirect_stderr(printed), quiet(), torch.device("meta"):
        open_clip.create_model("ViT-B-32", device="meta", load_weights=False)
    assert printed.getvalue() == ""
    assert logging.getLogger().handlers == handlers
    assert not logging.getLogger().manager.disable
