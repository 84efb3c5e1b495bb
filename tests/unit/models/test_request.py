"""Reading the name of a model and the values of a request."""

import subprocess
import sys

import pytest

from exporter.errors import ExportError, ModelUnavailableError, UsageError
from exporter.models import ModelRequest, load
from exporter.models.request import check_multiple, resolve, safe_name


@pytest.mark.parametrize(
    ("model", "source", "identifier"),
    [
        pytest.param("vit_b16", "timm", "vit_base_patch16_224", id="alias"),
        pytest.param("timm:a.b", "timm", "a.b", id="timm"),
        pytest.param("hf:openai/clip", "hf", "openai/clip", id="hub"),
        pytest.param("hf:./folder", "hf", "./folder", id="folder"),
        pytest.param("open_clip:ViT-B-32/openai", "open_clip", "ViT-B-32/openai", id="open_clip"),
        pytest.param("some/where/model.pt2", "pt2", "some/where/model.pt2", id="program"),
    ],
)
def test_a_name_says_its_source_and_id(model: str, source: str, identifier: str) -> None:
    asked = resolve(ModelRequest(model=model))
    assert (asked.source, asked.id) == (source, identifier)


@pytest.mark.parametrize(
    ("model", "hint"),
    [
        pytest.param("vit_b61", '"vit_b16"', id="alias"),
        pytest.param("tim:vit_tiny_patch16_224", '"timm"', id="source"),
        pytest.param("timm:vit_tiny_patch16_22", '"vit_tiny_patch16_224"', id="timm name"),
        pytest.param(
            "timm:vit_tiny_patch16_224.augreg_in21k_ft_in1", '"augreg_in21k_ft_in1k"', id="timm tag"
        ),
        pytest.param("torchvision:vit_b_61", '"vit_b_16"', id="torchvision name"),
        pytest.param("torchvision:vit_b_16/IMAGENET1K_V2", '"IMAGENET1K_V1"', id="torchvision weights"),
        pytest.param("open_clip:ViT-B-23", '"ViT-B-32"', id="open_clip name"),
        pytest.param("open_clip:ViT-B-32/opena", '"openai"', id="open_clip tag"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_one(model: str, hint: str) -> None:
    with pytest.raises(ModelUnavailableError, match="Did you mean") as caught:
        load(ModelRequest(model=model, weights="random"))
    assert hint in str(caught.value)
    assert caught.value.exit_status == 3


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        pytest.param(
            ModelRequest(model="vit_b16", image_size=225), UsageError, id="size not a multiple, timm"
        ),
        pytest.param(
            ModelRequest(model="torchvision:vit_b_16", image_size=225),
            UsageError,
            id="size not a multiple, torchvision",
        ),
        pytest.param(
            ModelRequest(model="clip_vit_b32", image_size=225),
            UsageError,
            id="size not a multiple, open_clip",
        ),
        pytest.param(
            ModelRequest(model="siglip_b16", image_size=225),
            UsageError,
            id="size not a multiple, open_clip over timm",
        ),
        pytest.param(ModelRequest(model="vit_digits", image_size=64), UsageError, id="fixed size"),
        pytest.param(ModelRequest(model="timm:resnet18", image_size=256), UsageError, id="no patches, timm"),
        pytest.param(
            ModelRequest(model="torchvision:resnet18", image_size=256),
            UsageError,
            id="no patches, torchvision",
        ),
        pytest.param(ModelRequest(model="vit_b16", image_size=0), UsageError, id="no pixels"),
        pytest.param(ModelRequest(model="vit_b16", image_size=-16), UsageError, id="negative size"),
        pytest.param(ModelRequest(model="vit_b16", image_size=16_000_000), UsageError, id="absurd size"),
        pytest.param(ModelRequest(model="vit_b16", tower="text"), UsageError, id="no text tower, timm"),
        pytest.param(
            ModelRequest(model="torchvision:vit_b_16", tower="text"),
            UsageError,
            id="no text tower, torchvision",
        ),
        pytest.param(
            ModelRequest(model="vit_digits", options={"num_classes": 5}), UsageError, id="an option, digits"
        ),
        pytest.param(ModelRequest(model="vit_digits", tower="text"), UsageError, id="no text tower, digits"),
        pytest.param(ModelRequest(model="timm:"), ModelUnavailableError, id="empty name"),
        pytest.param(ModelRequest(model=""), ModelUnavailableError, id="nothing"),
        pytest.param(ModelRequest(model="hf:./not-there"), ModelUnavailableError, id="no such folder"),
        pytest.param(ModelRequest(model="not-there.pt2"), ModelUnavailableError, id="no such program"),
    ],
)
def test_a_askedthat_makes_no_sense_is_refused_in_one_line(
    asked: ModelRequest, error: type[ExportError]
) -> None:
    with pytest.raises(error) as caught:
        load(asked)
    assert "\n" not in str(caught.value)


def test_a_folder_without_its_source_is_pointed_to_hf(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("checkpoint")
    with pytest.raises(ModelUnavailableError, match=f"hf:{folder}"):
        load(ModelRequest(model=str(folder)))


@pytest.mark.parametrize(
    ("size", "patch", "line"),
    [
        pytest.param(225, 16, "--image-size 225 .* patch size 16, got 225; use 224 or 240", id="square"),
        pytest.param((96, 150), 16, "--image-size 96x150 .* size 16, got 150; use 144 or 160", id="width"),
        pytest.param((90, 160), 16, "--image-size 90x160 .* size 16, got 90; use 80 or 96", id="height"),
        pytest.param((96, 90), (16, 12), "size 12, got 90; use 84 or 96", id="width, by another patch"),
        pytest.param((90, 96), (16, 12), "size 16, got 90; use 80 or 96", id="height, by another patch"),
        pytest.param((8, 96), 16, "size 16, got 8; use 16", id="less than one patch"),
    ],
)
def test_a_size_that_patches_do_not_tile_says_which_sizes_they_tile(
    size: int | tuple[int, int], patch: int | tuple[int, int], line: str
) -> None:
    with pytest.raises(UsageError, match=line):
        check_multiple(size, patch, "it")


@pytest.mark.parametrize(
    ("size", "patch"), [(224, 16), ((96, 160), 16), ((96, 84), (16, 12)), ((48, 48), (16, 12))]
)
def test_a_size_that_patches_tile_is_taken(size: int | tuple[int, int], patch: int | tuple[int, int]) -> None:
    check_multiple(size, patch, "it")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        pytest.param("vit_base.augreg", "vit_base.augreg", id="kept"),
        pytest.param("../a b", "a-b", id="no way out, no spaces"),
        pytest.param("..", "model", id="never empty"),
    ],
)
def test_names_are_safe_for_file_systems(text: str, name: str) -> None:
    assert safe_name(text) == name


def test_importing_the_room_imports_no_model_library() -> None:
    code = (
        "import sys, exporter.models;"
        "heavy = {'torch', 'timm', 'torchvision', 'transformers', 'open_clip', 'huggingface_hub'};"
        "sys.exit(len(heavy & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("library", "room", "model", "extra"),
    [
        pytest.param(
            "transformers", "exporter.models.hf.source", "hf:./x", "exporter[hf]", id="transformers"
        ),
        pytest.param(
            "open_clip",
            "exporter.models.open_clip.",
            "clip_vit_b32",
            "exporter[open-clip]",
            id="open_clip",
        ),
    ],
)
def test_a_missing_library_names_its_extra(
    library: str, room: str, model: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    for name in [name for name in sys.modules if name.startswith(room)]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ModelUnavailableError) as caught:
        load(ModelRequest(model=model))
    assert extra in str(caught.value)
