"""Folders that timm saved, repositories in the cache of the hub, and what is no such folder; names of classes."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.data.imagenet_info import ImageNetInfo
from timm.models import save_for_hf
from torch import nn

from exporter.errors import ExportError, ModelUnavailableError, WeightsError
from exporter.models import ModelRequest, load
from exporter.models.class_names import imagenet_names, listed_names
from exporter.models.timm.parameters import first_convolution, told_by
from exporter.models.weights import redraw_constant_parameters
from tests.support.loaded_models import assert_computes

NAME = "test_vit"
ARGUMENTS: dict[str, Any] = {"num_classes": 3, "global_pool": "avg", "img_size": 96, "reg_tokens": 2}
LABELS: dict[str, Any] = {
    "label_names": ["cat", "dog", "owl"],
    "label_descriptions": {"cat": "house cat, tabby", "dog": "dog", "owl": "owl"},
}


@pytest.fixture(scope="module")
def module() -> nn.Module:
    torch.manual_seed(2)
    built: nn.Module = timm.create_model(NAME, **ARGUMENTS)
    redraw_constant_parameters(built)
    return built.eval()


@pytest.fixture(scope="module")
def saved(module: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as timm saves it."""
    folder = tmp_path_factory.mktemp("timm") / "my-vit"
    save_for_hf(module, str(folder), model_config=dict(LABELS), safe_serialization=True)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(saved, tmp_path / "my-vit"))


@pytest.mark.parametrize("spelling", ["local-dir:{}", "{}"])
def test_a_saved_folder_computes_what_timm_does(spelling: str, saved: Path) -> None:
    loaded = load(ModelRequest(model=f"timm:{spelling.format(saved)}"))
    theirs: nn.Module = timm.create_model(f"local-dir:{saved}", pretrained=True).eval()
    assert_computes(loaded, theirs)
    assert (loaded.id, loaded.name, loaded.source, loaded.weights_kind) == (
        "my-vit",
        "my-vit",
        "timm",
        "pretrained",
    )
    assert loaded.class_names == (("house cat", "tabby", "cat"), ("dog",), ("owl",))
    assert loaded.example_input.shape == (3, 96, 96)
    assert str(saved) not in repr((loaded.notes, loaded.id, loaded.name, loaded.weights_tag))


def test_a_folder_is_found_from_where_one_stands(
    saved: Path, module: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(saved)
    loaded = load(ModelRequest(model="timm:."))
    assert_computes(loaded, module)
    assert loaded.id == "my-vit"


def _legacy(tree: dict[str, Any]) -> None:
    """The form of timm before 0.9: one flat dictionary, with `labels`."""
    tree |= tree.pop("pretrained_cfg") | {"labels": tree.pop("label_names")}
    for key in ("model_args", "label_descriptions", "num_classes", "global_pool"):
        tree.pop(key, None)


def _without_arguments(tree: dict[str, Any]) -> None:
    """As before arguments were saved: the rest is in the weights."""
    del tree["model_args"]


def _wrapped(tree: dict[str, Any]) -> None:
    """As transformers writes it around a timm model."""
    tree |= {"model_type": "timm_wrapper", "torch_dtype": "float32", "architectures": ["TimmWrapperModel"]}


@pytest.mark.parametrize("change", [_legacy, _without_arguments, _wrapped])
def test_every_form_of_the_configuration_is_read(
    change: Callable[[dict[str, Any]], None], folder: Path, module: nn.Module
) -> None:
    tree = json.loads((folder / "config.json").read_text())
    change(tree)
    (folder / "config.json").write_text(json.dumps(tree))
    loaded = load(ModelRequest(model=f"timm:{folder}"))
    assert_computes(loaded, module)
    assert loaded.class_names is not None


def test_a_folder_with_a_pickled_state_dict_is_read(folder: Path, module: nn.Module) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(module.state_dict(), folder / "pytorch_model.bin")
    assert_computes(load(ModelRequest(model=f"timm:{folder}")), module)


def test_other_weights_go_into_a_folders_architecture(
    folder: Path, module: nn.Module, tmp_path: Path
) -> None:
    state = {name: tensor * 1.5 for name, tensor in module.state_dict().items()}
    save_file(state, tmp_path / "other.safetensors")
    loaded = load(ModelRequest(model=f"timm:{folder}", weights=str(tmp_path / "other.safetensors")))
    assert isinstance(loaded.module, nn.Module)
    torch.testing.assert_close(loaded.module.state_dict(), state)
    drawn = load(ModelRequest(model=f"timm:{folder}", weights="random"))
    assert drawn.example_input == loaded.example_input
    assert drawn.class_names is None


@pytest.mark.parametrize("asked", [64, (64, 96)])
def test_a_folders_positions_are_resampled(
    asked: int | tuple[int, int], saved: Path, module: nn.Module
) -> None:
    loaded = load(ModelRequest(model=f"timm:{saved}", image_size=asked))
    theirs: Any = timm.create_model(f"local-dir:{saved}", pretrained=True, img_size=asked).eval()
    assert_computes(loaded, theirs)


@pytest.mark.parametrize("revision", [None, "v1"])
def test_a_repository_of_the_hub_is_read_through_its_cache(
    revision: str | None, saved: Path, module: nn.Module, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--someone--my-vit"
    shutil.copytree(saved, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / (revision or "main")).write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("exporter.models.fetch._hub_answers", lambda: False)
    asked = "someone/my-vit" + (f"@{revision}" if revision else "")
    loaded = load(ModelRequest(model=f"timm:hf-hub:{asked}"))
    assert_computes(loaded, module)
    assert (loaded.id, loaded.name, loaded.weights_tag) == (asked, "my-vit", commit)


def test_a_repository_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("exporter.models.fetch._hub_answers", lambda: False)
    with pytest.raises(ModelUnavailableError, match="cannot fetch"):
        load(ModelRequest(model="timm:hf-hub:someone/else"))


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        pytest.param("config.json", None, "has no config.json", id="no configuration"),
        pytest.param("config.json", "{", "is not valid JSON", id="damaged"),
        pytest.param("config.json", "[" * 99999, "nested too deeply", id="nested too deep"),
        pytest.param("config.json", "[]", "holds a list", id="a list"),
        pytest.param("config.json", '{"model_type": "vit"}', "given as hf:FOLDER", id="transformers"),
        pytest.param(
            "config.json", '{"architecture": "vit_bse_patch16_224"}', "Did you mean", id="unknown name"
        ),
        pytest.param("config.json", '{"architecture": 3}', "has no model", id="no name"),
        pytest.param(
            "config.json",
            '{"architecture": "test_vit", "pretrained_cfg": 3}',
            "cannot be read by timm",
            id="a number",
        ),
        pytest.param(
            "config.json",
            '{"architecture": "test_vit", "pretrained_cfg": {}, "model_args": {"depth": "x"}}',
            "cannot be built",
            id="impossible arguments",
        ),
        *(
            pytest.param(
                "config.json",
                json.dumps({"architecture": "test_vit", "pretrained_cfg": {}, "model_args": {name: value}}),
                f'model_args has "{name}", which is no argument of an architecture',
                id=name,
            )
            for name, value in {
                "pretrained": True,
                "checkpoint_path": "/tmp/w.pth",
                "cache_dir": "/tmp",
                "pretrained_cfg_overlay": {"file": "/tmp/w.pth"},
                "features_only": True,
                "device": "cuda",
            }.items()
        ),
        pytest.param("model.safetensors", None, "0 files of weights", id="no weights"),
        pytest.param(
            "model.safetensors", "version https://git-lfs.github.com/spec/v1\n", "git lfs pull", id="LFS"
        ),
    ],
)
def test_a_folder_that_timm_did_not_save_so_is_refused(
    file: str, content: str | None, expected: str, folder: Path
) -> None:
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_text(content)
    with pytest.raises(ExportError, match=expected) as caught:
        load(ModelRequest(model=f"timm:{folder}"))
    assert caught.value.exit_status == 3
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        pytest.param("timm:./not-there", "there is no folder", id="folder"),
        pytest.param("timm:local-dir:not-there", "there is no folder", id="local-dir"),
        pytest.param("timm:hf-hub:one-word", "expected timm:hf-hub:OWNER/NAME", id="repository"),
    ],
)
def test_what_is_not_there_is_refused_with_what_was_expected(model: str, expected: str) -> None:
    with pytest.raises(ModelUnavailableError, match=expected):
        load(ModelRequest(model=model))


def test_an_adapters_folder_is_refused(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(WeightsError, match="merge_and_unload"):
        load(ModelRequest(model=f"timm:{folder}"))


def test_several_files_of_weights_are_not_guessed_among(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    shutil.copy(folder / "a.safetensors", folder / "b.safetensors")
    with pytest.raises(
        WeightsError, match=r"2 files of weights \(a\.safetensors, b\.safetensors\).*--weights"
    ):
        load(ModelRequest(model=f"timm:{folder}"))


@pytest.mark.parametrize("subset", ["imagenet-1k", "imagenet-21k-goog", "imagenet-12k"])
def test_imagenets_names_are_timms(subset: str) -> None:
    info: Any = ImageNetInfo(subset)
    names = imagenet_names(info.num_classes())
    assert names is not None
    assert [each[-1] for each in names] == info.label_names()
    assert [", ".join(each[:-1]) for each in names][:500] == [
        ", ".join(dict.fromkeys(text.split(", "))) for text in info.label_descriptions()[:500]
    ]


def test_names_that_everybody_knows() -> None:
    names = imagenet_names(1000)
    assert names is not None
    assert names[0] == ("tench", "Tinca tinca", "n01440764")
    assert imagenet_names(10) is None


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        pytest.param({"label_names": ["a", "b"]}, (("a",), ("b",)), id="list"),
        pytest.param({"label_names": {"1": "b", "0": "a"}}, (("a",), ("b",)), id="by index"),
        pytest.param({"label_names": {0: "a", 1: "b"}}, (("a",), ("b",)), id="by number"),
        pytest.param({"label_names": ["a"]}, None, id="too few"),
        pytest.param({"label_names": {"0": "a", "5": "b"}}, None, id="with gaps"),
        pytest.param({"label_names": ["a", 3]}, None, id="not text"),
        pytest.param({"label_names": "ab"}, None, id="not a list"),
        pytest.param({}, None, id="none"),
    ],
)
def test_names_of_a_configuration(config: dict[str, Any], expected: object) -> None:
    assert listed_names(config, 2) == expected


def test_names_of_pretrained_weights_are_imagenets_and_random_weights_have_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def filled(model: Any, arguments: dict[str, Any]) -> nn.Module:
        built: nn.Module = timm.create_model(model.full_name, **arguments)
        return built.eval()

    monkeypatch.setattr("exporter.models.timm.source._fetch_pretrained", filled)
    loaded = load(ModelRequest(model=f"timm:{NAME}"))
    assert loaded.class_names is not None
    assert len(loaded.class_names) == 1000
    assert load(ModelRequest(model=f"timm:{NAME}", options={"num_classes": 0})).class_names is None
    assert load(ModelRequest(model=f"timm:{NAME}", weights="random")).class_names is None


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        pytest.param({"interpolation": "hamming"}, "interpolation: expected one of", id="another filter"),
        pytest.param({"interpolation": "random"}, "interpolation: expected one of", id="no filter"),
        pytest.param({"mean": "abc"}, "mean: expected a list", id="letters"),
        pytest.param({"mean": 0.5}, "mean: expected a list", id="no list"),
        pytest.param({"std": [0, 0, 0]}, "std: expected numbers", id="no deviation"),
        pytest.param({"mean": [123.675, 116.28, 103.53]}, "looks like 0..255", id="bytes"),
        pytest.param({"crop_mode": "round"}, 'crop mode "round" is not supported', id="crop mode"),
    ],
)
def test_preprocessing_that_cannot_be_is_refused(said: dict[str, Any], expected: str, folder: Path) -> None:
    change_preprocessing(folder, **said)
    with pytest.raises(ModelUnavailableError, match=expected) as caught:
        load(ModelRequest(model=f"timm:{folder}", weights="random"))
    assert str(caught.value).endswith("say it with --preprocess FILE.json")


def test_preprocessing_that_cannot_be_may_be_given(folder: Path, tmp_path: Path) -> None:
    change_preprocessing(folder, crop_mode="round")
    given = tmp_path / "given.json"
    given.write_text(json.dumps({"image_size": 96, "mean": [0.5] * 3, "std": [0.5] * 3}))
    loaded = load(ModelRequest(model=f"timm:{folder}", weights="random", preprocess=str(given)))
    assert loaded.preprocess is not None
    assert loaded.preprocess.mean == (0.5, 0.5, 0.5)


def change_preprocessing(folder: Path, **said: Any) -> None:
    tree = json.loads((folder / "config.json").read_text())
    tree["pretrained_cfg"] |= said
    (folder / "config.json").write_text(json.dumps(tree))


def test_a_stem_before_the_patches_takes_the_image() -> None:
    with torch.device("meta"):
        module: nn.Module = timm.create_model("volo_d1_224", in_chans=1)
    first = first_convolution(module)
    assert first is not None
    assert first.in_channels == 1
    assert "in_chans" not in told_by(module.state_dict(), module, {}, {}).arguments
