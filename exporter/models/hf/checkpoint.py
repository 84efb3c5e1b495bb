"""What a folder or repository holds, read before transformers does: each kind of defect has its own advice.

In: a `Place`; out: the content of its `config.json`. Nothing is built here, and no file
is unpickled.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exporter.errors import ModelUnavailableError, nearest, quoted
from exporter.models.checkpoint.content import MERGE_FIRST
from exporter.models.checkpoint.read import check_readable
from exporter.models.hf.place import Place
from exporter.models.json_file import read_json

_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)

# Weights of other libraries, as they are called in a folder.
_OTHER_WEIGHTS: dict[str, str] = {
    "tf_model.h5": "TensorFlow",
    "flax_model.msgpack": "Flax",
    "model.ckpt.index": "TensorFlow 1",
    "rust_model.ot": "Rust",
    "model.onnx": "ONNX",
}

_ADAPTER = f"is an adapter (LoRA or another of PEFT), not a model; {MERGE_FIRST}"


def read_config_json(place: Place) -> dict[str, Any]:
    """Read `config.json`, and refuse by name what cannot be loaded from it.

    Raises:
        ModelUnavailableError: There is none, it is damaged, or it describes what this source does not load.
        OSError: The repository cannot be reached.
    """
    path = place.file("config.json")
    if path is None:
        _check_reached(place)
        raise ModelUnavailableError(f"{place.spelling} {_without_config(place)}")
    config = read_place_json(path, place)
    if complaint := _complaint(config):
        raise ModelUnavailableError(f"{place.spelling} {complaint}")
    return config


def is_of_diffusers(config: Mapping[str, Any]) -> bool:
    """Whether a `config.json` is that of a model of diffusers."""
    return isinstance(config.get("_class_name"), str) and "model_type" not in config


def read_place_json(path: Path, place: Place) -> dict[str, Any]:
    """Read a JSON file of a checkpoint.

    Raises:
        ModelUnavailableError: It is no JSON object.
    """
    return read_json(path, f"{path.name} of {place.spelling}")


def check_weights(place: Place) -> None:
    """Refuse a folder without weights that can be read, with what it has instead.

    Raises:
        ModelUnavailableError: It has none, or those of another library, or an adapter alone.
        WeightsError: A file is a Git LFS pointer or empty, or a shard is missing.
    """
    if (folder := place.folder) is None:
        return
    found = next((name for name in _WEIGHTS if (folder / name).is_file()), None)
    if found is None:
        raise ModelUnavailableError(f"{place.spelling} {_without_weights(folder)}")
    check_readable(folder / found)


def _check_reached(place: Place) -> None:
    """Without a network every file of a repository seems missing; with one, config.json alone may be.

    Raises:
        OSError: The repository cannot be reached, or does not exist.
    """
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        place.check_reached()
    except OSError as error:
        missing = isinstance(error.__cause__, EntryNotFoundError)
        if not missing or isinstance(error.__cause__, LocalEntryNotFoundError):
            raise


def _without_config(place: Place) -> str:
    if place.file("adapter_config.json"):
        return _ADAPTER
    if place.file("open_clip_config.json"):
        prefix = "hf-hub:" if place.folder is None else "local-dir:"
        return f"is a folder of open_clip: write open_clip:{prefix}{place.where}"
    if place.file("model_index.json"):
        return f"is a pipeline of diffusers, not one model{_inside(place)}"
    if place.file("modules.json"):
        return f"is a folder of sentence-transformers, not one model{_inside(place)}"
    return f"has no config.json: expected a folder of save_pretrained{_inside(place)}"


def _inside(place: Place) -> str:
    if (folder := place.folder) is None:
        return ": download it, and give the folder inside that has its own config.json"
    found = [
        path.parent.relative_to(folder).as_posix()
        for pattern in ("*/config.json", "snapshots/*/config.json")
        for path in sorted(folder.glob(pattern))
    ]
    if not found:
        return ""
    more = f" ({len(found)} folders inside have one)" if len(found) > 1 else ""
    return (
        f": give the folder inside that is a model, such as hf:{folder.as_posix()}/{quoted(found[0])}{more}"
    )


def _complaint(config: Mapping[str, Any]) -> str | None:
    if config.get("quantization_config"):
        return f"is a quantised checkpoint ({_quantisation(config['quantization_config'])}): {_DEQUANTISE}"
    if "pretrained_cfg" in config:  # of timm's own: transformers reads it as timm_wrapper
        return None
    if is_of_diffusers(config):
        return None
    model_type = config.get("model_type")
    if model_type is None and "architecture" in config:
        return "is a folder of timm without pretrained_cfg: write timm:local-dir:FOLDER"
    if not isinstance(model_type, str):
        return "has a config.json without model_type: expected one written by save_pretrained"
    return _unknown(model_type, config)


_DEQUANTISE = (
    "its weights are integers with scales, which merging does not read; give the checkpoint that it was made from, or "
    "load it with its own library and save `model.dequantize()`"
)


def _quantisation(config: Any) -> str:
    if not isinstance(config, Mapping):
        return "quantization_config"
    method = config.get("quant_method") or ("bitsandbytes" if "load_in_8bit" in config else None)
    return quoted(method or "quantization_config")


def _unknown(model_type: str, config: Mapping[str, Any]) -> str | None:
    import transformers
    from transformers import CONFIG_MAPPING

    named = config.get("architectures") or []
    if not (isinstance(named, list) and all(isinstance(name, str) for name in named)):
        return f"has a config.json whose architectures are {quoted(named)}: expected a list of class names"
    knows_type = model_type in CONFIG_MAPPING
    knows_class = not named or hasattr(transformers, named[0])
    if knows_type and knows_class:
        return None
    what = f'class "{quoted(named[0])}"' if knows_type else f'model_type "{quoted(model_type)}"'
    if config.get("auto_map"):
        return (
            f"needs code of the repository (auto_map; transformers {transformers.__version__} has no {what}), "
            "which is not run; where you trust it, load it yourself and give a program of torch.export (MODEL.pt2)"
        )
    hint = "" if knows_type else nearest(quoted(model_type), CONFIG_MAPPING)
    return (
        f"is of a {what}, which transformers {transformers.__version__} does not have: upgrade transformers "
        f"(pip install -U transformers), or correct config.json.{hint}"
    )


def _without_weights(folder: Path) -> str:
    if (folder / "adapter_config.json").is_file():
        return _ADAPTER
    for name, library in _OTHER_WEIGHTS.items():
        if (folder / name).is_file():
            return (
                f"has weights of {library} only ({name}): expected model.safetensors; convert it with an older "
                "transformers, or give --weights FILE"
            )
    if variants := sorted(
        path.name
        for pattern in ("model.*.safetensors", "pytorch_model.*.bin")
        for path in folder.glob(pattern)
    ):
        return (
            f"has weights of a variant only ({quoted(variants[0])}): expected model.safetensors; rename the file, or "
            "give it by --weights FILE"
        )
    return (
        "has no weights: expected model.safetensors or pytorch_model.bin in the folder; fetch it, or give "
        "--weights FILE or random"
    )
