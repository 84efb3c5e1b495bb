"""A folder that is no checkpoint, or not quite, is refused by its own cause and with its own advice."""

import errno
import json
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn

from exporter.errors import ModelUnavailableError, UsageError, library_failures
from exporter.models import ModelRequest, load
from exporter.models.hf.errors import explained, reading
from exporter.models.hf.place import Place
from exporter.models.model_options import building_with
from tests.support.hf_families import of

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0000\nsize 346000000\n"

Damage = Callable[[Path], object]


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("intact")
    of("ViTForImageClassification")().save_pretrained(folder)
    transformers.ViTImageProcessor(size=32).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(intact: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    for path in intact.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def write(name: str, content: object) -> Damage:
    """Put a file in place of another: text, bytes, or JSON."""

    def damage(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")

    return damage


def change(**keys: Any) -> Damage:
    """Set keys of config.json; None takes one out."""

    def damage(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text()) | keys
        kept = {key: value for key, value in config.items() if value is not None}
        (folder / "config.json").write_text(json.dumps(kept))

    return damage


def only(*damages: Damage) -> Damage:
    """Take every file out first."""

    def damage(folder: Path) -> None:
        for path in folder.iterdir():
            path.unlink()
        for each in damages:
            each(folder)

    return damage


def without_weights(*damages: Damage) -> Damage:
    def damage(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        for each in damages:
            each(folder)

    return damage


def a_config(name: str) -> Damage:
    return write(name, {"model_type": "vit"})


INDEX = {"weight_map": {"classifier.bias": "model-00002-of-00002.safetensors"}}
REMOTE = {"AutoModel": "modeling.MyModel"}


class Dangerous:
    """Leaves a file behind when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("ran",)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        pytest.param(only(), "has no config.json: expected a folder of save_pretrained", id="empty folder"),
        pytest.param(
            only(a_config("checkpoint-500/config.json")),
            r"no config.json.*such as hf:.*/checkpoint-500",
            id="folder of a training",
        ),
        pytest.param(
            only(write("modules.json", []), a_config("0_CLIPModel/config.json")),
            r"sentence-transformers.*hf:.*/0_CLIPModel",
            id="sentence-transformers",
        ),
        pytest.param(
            only(write("model_index.json", {}), a_config("image_encoder/config.json")),
            r"diffusers.*hf:.*/image_encoder",
            id="diffusers",
        ),
        pytest.param(
            only(write("open_clip_config.json", {})), "write open_clip:local-dir:", id="folder of open_clip"
        ),
        pytest.param(
            only(write("adapter_config.json", {})), r"adapter.*merge_and_unload\(\)", id="adapter alone"
        ),
        pytest.param(
            without_weights(write("adapter_config.json", {}), write("adapter_model.safetensors", b"")),
            r"adapter.*merge_and_unload\(\)",
            id="adapter beside a configuration",
        ),
        pytest.param(
            only(write("config.json", {"architecture": "vit_tiny", "num_classes": 3})),
            "folder of timm.*timm:local-dir:",
            id="folder of timm without its configuration",
        ),
        pytest.param(write("config.json", POINTER), "config.json .*git lfs pull", id="LFS pointer: config"),
        pytest.param(
            write("model.safetensors", POINTER), 'model.safetensors" .*git lfs pull', id="LFS: weights"
        ),
        pytest.param(
            write("preprocessor_config.json", POINTER),
            "preprocessor_config.json .*git lfs pull",
            id="LFS: photos",
        ),
        pytest.param(
            write("config.json", '{\n "model_type": "vit",\n}'),
            "config.json .*line 3, column 1",
            id="broken JSON",
        ),
        pytest.param(
            write("preprocessor_config.json", '{"size" 3}'),
            "preprocessor_config.json .*line 1, column 9",
            id="broken JSON of photos",
        ),
        pytest.param(write("config.json", "[1, 2]"), "holds a list: expected a JSON object", id="a list"),
        pytest.param(write("config.json", b"\xff\xfe\x00"), "is not UTF-8 text", id="not text"),
        pytest.param(write("config.json", "[" * 100_000), "nested too deeply", id="deep JSON"),
        pytest.param(change(model_type=None), "without model_type", id="no model_type"),
        pytest.param(change(model_type=["vit"]), "without model_type", id="model_type of another kind"),
        pytest.param(
            change(model_type="vlt"),
            r'"vlt".* does not have: upgrade.*Did you mean "v',
            id="unknown model_type",
        ),
        pytest.param(
            change(architectures=["ViTForEverything"]), '"ViTForEverything".* upgrade', id="unknown class"
        ),
        pytest.param(change(architectures="ViTModel"), "expected a list of class names", id="class as text"),
        pytest.param(
            change(model_type="myvit", auto_map=REMOTE),
            "needs code of the repository.*not run",
            id="remote code",
        ),
        pytest.param(
            change(architectures=["MyViT"], auto_map=REMOTE),
            "needs code of the repository",
            id="remote class",
        ),
        pytest.param(
            change(quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True}),
            "quantised checkpoint .bitsandbytes.*dequantize",
            id="8 bits",
        ),
        pytest.param(change(quantization_config={"quant_method": "gptq", "bits": 4}), "gptq", id="GPTQ"),
        pytest.param(change(quantization_config={"quant_method": "awq"}), "awq", id="AWQ"),
        pytest.param(change(num_channels=[3]), "correct its config.json", id="channels as a list"),
        pytest.param(change(hidden_size="wide"), "config.json|hidden_size", id="a number that is text"),
        pytest.param(change(num_attention_heads=0), "cannot|expected", id="no heads"),
        pytest.param(change(id2label=[1, 2]), "correct its config.json", id="labels as a list"),
        pytest.param(without_weights(), "has no weights: expected model.safetensors or", id="no weights"),
        pytest.param(
            without_weights(write("tf_model.h5", b"x")), "weights of TensorFlow only", id="TensorFlow"
        ),
        pytest.param(without_weights(write("flax_model.msgpack", b"x")), "weights of Flax only", id="Flax"),
        pytest.param(
            without_weights(write("model.fp16.safetensors", b"x")), "a variant only .model.fp16", id="variant"
        ),
        pytest.param(
            without_weights(write("model.safetensors.index.json", INDEX)),
            "of which 1 are missing: model-00002-of-00002.safetensors",
            id="missing shard",
        ),
        pytest.param(
            without_weights(write("model.safetensors.index.json", {"weight_map": {"a": "../../etc/passwd"}})),
            "outside of its folder",
            id="shard elsewhere",
        ),
        pytest.param(
            without_weights(write("model.safetensors.index.json", {"metadata": {}})),
            "weight_map",
            id="no map",
        ),
        pytest.param(write("model.safetensors", b""), "is empty", id="empty weights"),
        pytest.param(write("model.safetensors", b"\xff" * 500), "damaged", id="damaged weights"),
        pytest.param(
            without_weights(write("pytorch_model.bin", b"\x80\x04 no state")),
            "cannot read|objects",
            id="bad pickle",
        ),
        pytest.param(write("preprocessor_config.json", {"size": "big"}), "preprocess", id="size as text"),
        pytest.param(
            write("preprocessor_config.json", {"resample": [1]}),
            "cannot read the preprocessing",
            id="filter as a list",
        ),
        pytest.param(
            write("preprocessor_config.json", {"rescale_factor": {}}),
            "cannot read the preproc",
            id="factor as an object",
        ),
        pytest.param(
            write("preprocessor_config.json", {"auto_map": {"AutoImageProcessor": "a.B"}}),
            "code of the repository .*not run.*--preprocess",
            id="remote processor",
        ),
    ],
)
def test_a_folder_is_refused_by_its_own_cause(
    damage: Damage, expected: str, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("transformers.utils.hub.HF_MODULES_CACHE", str(tmp_path / "modules"))
    damage(folder)
    with pytest.raises(Exception, match=expected) as caught:
        load(ModelRequest(model=f"hf:{folder}"))
    assert getattr(caught.value, "exit_status", 70) == 3
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "modules").exists()


def test_a_pickle_that_runs_code_is_refused_and_nothing_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"classifier.bias": Dangerous()}, folder / "pytorch_model.bin")
    monkeypatch.chdir(folder)
    with pytest.raises(ModelUnavailableError, match=r"run code when loaded|safetensors"):
        load(ModelRequest(model=f"hf:{folder}"))
    assert not (folder / "ran").exists()
    with (folder / "pytorch_model.bin").open("wb") as file:
        pickle.dump({"classifier.bias": Dangerous()}, file)
    with pytest.raises(ModelUnavailableError):
        load(ModelRequest(model=f"hf:{folder}"))
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("shards", [1, 2])
def test_pickled_and_sharded_weights_are_the_same_model(folder: Path, shards: int) -> None:
    whole = load(ModelRequest(model=f"hf:{folder}"))
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    if shards == 1:
        torch.save(state, folder / "pytorch_model.bin")
    else:
        names = sorted(state)
        halves = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
        for file, keys in halves.items():
            save_file({key: state[key] for key in keys}, folder / file, metadata={"format": "pt"})
        index = {"weight_map": {key: file for file, keys in halves.items() for key in keys}, "metadata": {}}
        write("model.safetensors.index.json", index)(folder)
    again = load(ModelRequest(model=f"hf:{folder}"))
    assert again.weights_sha256 == whole.weights_sha256
    assert again.notes == whole.notes == ()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param(
            "GatedRepoError", r"is gated: accept its terms at https://huggingface.co/o/r", id="gated"
        ),
        pytest.param("RepositoryNotFoundError", "does not exist on the hub, or is private", id="missing"),
        pytest.param("RevisionNotFoundError", 'has no revision "v2"', id="revision"),
    ],
)
def test_the_hubs_refusals_are_told_apart(name: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import errors

    monkeypatch.setattr("exporter.models.fetch._hub_answers", lambda: True)
    place = Place(spelling="hf:o/r@v2", where="o/r", revision="v2")
    response = SimpleNamespace(headers={}, request=None)
    cause = getattr(errors, name)("no", response=response)
    with pytest.raises(ModelUnavailableError, match=expected), reading("it", place, advice="-"):
        raise OSError("cannot") from cause


@pytest.mark.parametrize(
    "error",
    [
        KeyError("x"),
        TypeError("y"),
        AttributeError("z"),
        RecursionError(),
        ImportError("no module"),
        IndexError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_the_library_raises_is_one_line(error: Exception, tmp_path: Path) -> None:
    place = Place(spelling="hf:./x", where=str(tmp_path))
    with pytest.raises(ModelUnavailableError, match=re.escape("hf:./x")), reading("it", place, advice="-"):
        raise error


@pytest.mark.parametrize(
    "error",
    [MemoryError(), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), RuntimeError("can't allocate memory")],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_what_is_the_machines_is_not_the_checkpoints(error: Exception, wrapped: bool, tmp_path: Path) -> None:
    place = Place(spelling="hf:./x", where=str(tmp_path))

    def fail() -> nn.Module:
        if not wrapped:
            raise error
        try:
            raise error
        except Exception as cause:
            raise OSError("unable to load") from cause

    for block in (
        reading("it", place, advice="-"),
        explained("it", place, advice="-"),
        library_failures(UsageError, "no", "-"),
    ):
        with pytest.raises(type(error)) as caught, block:
            fail()
        assert caught.value is error
    if not wrapped:
        with pytest.raises(type(error)):
            building_with(fail, {"depth": 1}, "it")
