"""Weights files, options, class names, and models of timm that transformers wraps."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn

from exporter.errors import UsageError, WeightsError
from exporter.models import ModelRequest, load
from tests.support.hf_families import DINO, of
from tests.support.loaded_models import assert_computes

Save = Callable[..., tuple[Any, Path]]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Saves a tiny model under a name, with a processor; gives both."""

    def to(folder: str, name: str, **changes: Any) -> tuple[Any, Path]:
        torch.manual_seed(len(folder))
        model = of(name, **{**(DINO if "ino" in name else {}), **changes})().eval()
        model.save_pretrained(tmp_path / folder)
        transformers.ViTImageProcessor(size=32).save_pretrained(tmp_path / folder)
        return model, tmp_path / folder

    return to


@pytest.mark.parametrize(
    ("name", "changes", "note"),
    [
        pytest.param("ViTForImageClassification", {"num_labels": 9}, "num_labels 9", id="classes"),
        pytest.param("ViTForImageClassification", {"image_size": 48}, "image_size 48", id="image size"),
        pytest.param("CLIPForImageClassification", {"image_size": 48}, "image_size 48", id="size of a part"),
        pytest.param(
            "DeiTForImageClassificationWithTeacher",
            {"num_labels": 3, "image_size": 64},
            "num_labels 3",
            id="two heads",
        ),
        pytest.param(
            "Dinov2WithRegistersForImageClassification",
            {"num_register_tokens": 2},
            "num_register_tokens 2",
            id="registers",
        ),
    ],
)
def test_the_free_parameters_of_a_file_are_taken_from_it(
    name: str, changes: Any, note: str, save: Save
) -> None:
    _, base = save("base", name)
    model, tuned = save("tuned-further", name, **changes)
    loaded = load(ModelRequest(model=f"hf:{base}", weights=str(tuned / "model.safetensors")))
    assert_computes(loaded, lambda images: model(images).logits)
    assert any(f"{note} is taken from the weights file" in each for each in loaded.notes)
    assert loaded.class_names is None


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module.model."])
def test_a_prefix_of_training_code_is_taken_off_and_named(prefix: str, save: Save, tmp_path: Path) -> None:
    model, folder = save("m", "ViTForImageClassification")
    state = {f"{prefix}{name}": tensor.contiguous() for name, tensor in model.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "w.ckpt")
    loaded = load(ModelRequest(model=f"hf:{folder}", weights=str(tmp_path / "w.ckpt")))
    assert loaded.weights_sha256 == load(ModelRequest(model=f"hf:{folder}")).weights_sha256
    assert any(prefix.rstrip(".") in note for note in loaded.notes)


def test_a_file_with_the_names_on_disk_fits_as_well(save: Save) -> None:
    _, folder = save("m", "ViTForImageClassification")
    assert any("encoder.layer.0" in name for name in load_file(folder / "model.safetensors"))
    loaded = load(ModelRequest(model=f"hf:{folder}", weights=str(folder / "model.safetensors")))
    assert loaded.weights_sha256 == load(ModelRequest(model=f"hf:{folder}")).weights_sha256
    assert loaded.notes == ()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({"hidden_size": 64}, "mis-shaped", id="width"),
        pytest.param({"num_hidden_layers": 3}, "3.*unexpected|unexpected: ", id="deeper"),
        pytest.param({"patch_size": 16}, "mis-shaped: vit.embeddings", id="patches"),
    ],
)
def test_what_is_not_free_is_refused(changes: Any, expected: str, save: Save) -> None:
    _, base = save("base", "ViTForImageClassification")
    _, other = save("other", "ViTForImageClassification", **changes)
    with pytest.raises(WeightsError, match=expected):
        load(ModelRequest(model=f"hf:{base}", weights=str(other / "model.safetensors")))


def test_a_file_without_the_head_is_refused(save: Save, tmp_path: Path) -> None:
    model, folder = save("m", "ViTForImageClassification")
    save_file(
        {name: tensor.contiguous() for name, tensor in model.vit.state_dict().items()}, tmp_path / "w.st"
    )
    with pytest.raises(WeightsError, match=r"missing: classifier"):
        load(ModelRequest(model=f"hf:{folder}", weights=str(tmp_path / "w.st")))


def test_an_option_that_the_file_contradicts_is_refused(save: Save) -> None:
    _, base = save("base", "ViTForImageClassification")
    _, tuned = save("tuned", "ViTForImageClassification", num_labels=9)
    request = ModelRequest(
        model=f"hf:{base}", weights=str(tuned / "model.safetensors"), options={"num_labels": 7}
    )
    with pytest.raises(WeightsError, match="num_labels 9, and --model-option says 7"):
        load(request)


@pytest.mark.parametrize(
    ("name", "options", "shape"),
    [
        pytest.param("ViTForImageClassification", {"num_labels": 7}, (2, 7), id="classes"),
        pytest.param("ViTForImageClassification", {"num_labels": 0}, (2, 32), id="no head"),
        pytest.param("CLIPModel", {"projection_dim": 24}, (2, 24), id="width of the embedding"),
        pytest.param("CLIPModel", {"num_channels": 1}, (2, 16), id="channels of a part"),
        pytest.param("Dinov2WithRegistersModel", {"num_register_tokens": 1}, (2, 32), id="registers"),
    ],
)
def test_options_set_what_is_built(name: str, options: Any, shape: tuple[int, int], save: Save) -> None:
    _, folder = save("m", name)
    loaded = load(ModelRequest(model=f"hf:{folder}", weights="random", options=options))
    assert isinstance(loaded.module, nn.Module)
    assert loaded.module(torch.zeros(2, *loaded.example_input.shape)).shape == shape
    assert loaded.output_names == (("features",) if options == {"num_labels": 0} else loaded.output_names)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param(
            {"num_lables": 3}, 'num_lables: .* no such option.*Did you mean "num_labels"', id="misspelled"
        ),
        pytest.param({"auto_map": "x"}, "auto_map: .* no such option", id="code"),
        pytest.param({"_attn_implementation": "eager"}, "no such option", id="private"),
        pytest.param({"image_size": 64}, "set by --image-size", id="size"),
        pytest.param({"num_labels": "many"}, "expected a whole number from 0", id="kind"),
        pytest.param({"num_labels": True}, "expected a whole number from 0", id="truth value"),
        pytest.param({"num_hidden_layers": 0}, "expected a whole number from 1", id="no blocks"),
        pytest.param({"projection_dim": 3}, "no such option", id="of another family"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: Any, expected: str, save: Save) -> None:
    _, folder = save("m", "ViTForImageClassification")
    with pytest.raises(UsageError, match=expected):
        load(ModelRequest(model=f"hf:{folder}", weights="random", options=options))


def test_an_option_that_the_checkpoint_contradicts_is_refused(save: Save) -> None:
    _, folder = save("m", "ViTForImageClassification")
    with pytest.raises(WeightsError, match="mis-shaped: classifier"):
        load(ModelRequest(model=f"hf:{folder}", options={"num_labels": 7}))


@pytest.mark.parametrize(
    ("labels", "names", "note"),
    [
        pytest.param(
            {"0": "tench, Tinca tinca", "2": "c", "1": "b", "3": "d", "4": "e"},
            (("tench, Tinca tinca", "tench", "Tinca tinca"), ("b",), ("c",), ("d",), ("e",)),
            None,
            id="in the order of their indices, with spellings",
        ),
        pytest.param({str(index): f"LABEL_{index}" for index in range(5)}, None, None, id="placeholders"),
        pytest.param(
            {"0": "a", "1": "b", "2": "c", "3": "d", "7": "e"}, None, "names 4 of 5 classes", id="a hole"
        ),
        pytest.param(
            {str(index): index for index in range(5)}, tuple((str(i),) for i in range(5)), None, id="numbers"
        ),
        pytest.param({str(index): "" for index in range(5)}, None, "names 0 of 5 classes", id="empty"),
    ],
)
def test_class_names_come_from_the_configuration(
    labels: Any, names: Any, note: str | None, save: Save
) -> None:
    _, folder = save("m", "ViTForImageClassification")
    config = json.loads((folder / "config.json").read_text()) | {"id2label": labels}
    (folder / "config.json").write_text(json.dumps(config))
    loaded = load(ModelRequest(model=f"hf:{folder}"))
    assert loaded.class_names == names
    assert [note in each for each in loaded.notes if note] == ([True] if note else [])


def test_too_few_class_names_are_left_out_with_a_note(save: Save) -> None:
    _, folder = save("m", "ViTForImageClassification")
    labels = {"0": "a", "1": "b", "2": "c"}
    config = json.loads((folder / "config.json").read_text()) | {"id2label": labels}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="mis-shaped: classifier"):  # transformers counts the names
        load(ModelRequest(model=f"hf:{folder}"))


def wrapped(name: str) -> Any:
    """A model of timm in a class of transformers."""
    torch.manual_seed(0)
    config = {
        "architecture": "test_vit",
        "num_classes": 5,
        "label_names": ["a", "b", "c", "d", "e"],
        "pretrained_cfg": {"input_size": [3, 160, 160], "mean": [0.5] * 3, "std": [0.5] * 3},
    }
    return getattr(transformers, name)(transformers.TimmWrapperConfig.from_dict(config)).eval()


@pytest.mark.parametrize("name", ["TimmWrapperForImageClassification", "TimmWrapperModel"])
def test_a_wrapped_model_of_timm_computes_what_transformers_does(name: str, tmp_path: Path) -> None:
    model = wrapped(name)
    model.save_pretrained(tmp_path)
    loaded = load(ModelRequest(model=f"hf:{tmp_path}"))
    is_classifier = name.endswith("Classification")
    assert_computes(loaded, lambda x: model(x).logits if is_classifier else model(x).pooler_output)
    assert loaded.source == "hf"
    assert loaded.output_names == ("logits" if is_classifier else "features",)
    assert loaded.class_names == (tuple((letter,) for letter in "abcde") if is_classifier else None)
    assert loaded.preprocess is not None
    assert loaded.preprocess.image_size == (160, 160)


@pytest.mark.parametrize("name", ["ViTForImageClassification", "TimmWrapperForImageClassification"])
def test_a_repository_in_the_cache_is_the_same_without_a_network(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789" * 4
    repository = tmp_path / "models--o--r"
    folder = repository / "snapshots" / commit
    if name.startswith("Timm"):
        wrapped(name).save_pretrained(folder)
    else:
        of(name)().save_pretrained(folder)
        transformers.ViTImageProcessor(size=32).save_pretrained(folder)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr("exporter.models.fetch._hub_answers", lambda: False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    loaded = load(ModelRequest(model="hf:o/r"))
    from_folder = load(ModelRequest(model=f"hf:{folder}"))
    assert loaded.weights_sha256 == from_folder.weights_sha256
    assert (loaded.id, loaded.weights_tag, loaded.preprocess) == ("o/r", commit, from_folder.preprocess)
    assert loaded.notes == from_folder.notes
