"""Which model of timm is asked for: a name of its registry, a folder that it saved, or a repository of the hub.

In: a `ResolvedRequest`; out: a `TimmModel`, which `source` builds and fills.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import timm
from timm.models import PretrainedCfg, build_model_with_cfg

from exporter.errors import ModelUnavailableError, WeightsError, first_few, library_failures, nearest, quoted
from exporter.models.checkpoint.content import MERGE_FIRST
from exporter.models.fetch import fetching
from exporter.models.json_file import read_json
from exporter.models.request import ResolvedRequest, safe_name

LOCAL = "local-dir:"
HUB = ("hf-hub:", "hf_hub:")

_OTHER_MODEL = "give --weights FILE or random"

# What timm and the hub call a file of weights, in the order in which timm's own loader takes them.
_WEIGHTS = ("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth")
_INDEX = "model.safetensors.index.json"
_SUFFIXES = (".safetensors", ".pth", ".pth.tar", ".bin", ".pt", ".ckpt")

# Where a configuration says that weights are: not used, and a path of this machine must not reach a bundle.
_PLACES = (
    "url",
    "file",
    "state_dict",
    "hf_hub_id",
    "hf_hub_filename",
    "source",
    "custom_load",
    "label_offset",
)


# Arguments with which timm gives something else than the model, or puts it elsewhere.
_NOT_ITS_OWN = ("features_only", "out_indices", "feature_cls", "device", "dtype")


@dataclass(frozen=True, kw_only=True)
class TimmModel:
    """An architecture with its configuration.

    Attributes:
        architecture: Its name in timm's registry.
        tag: Of its pretrained weights; empty if there is none.
        config: The library's pretrained configuration; None for the registry's own.
        arguments: With which a saved model was built.
        id: How the manifest names it; no path of this machine.
        name: For files.
        weights: Its own file of weights, of a folder or a repository.
        weights_tag: The tag or commit of its own weights.
    """

    architecture: str
    tag: str
    config: Mapping[str, Any] | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    id: str
    name: str
    weights: Path | None = None
    weights_tag: str | None = None

    @property
    def full_name(self) -> str:
        """As timm writes it, with the tag."""
        return f"{self.architecture}.{self.tag}" if self.tag else self.architecture


def find_timm_model(asked: ResolvedRequest) -> TimmModel:
    """Find the model that was asked for; the weights of a repository are fetched if they are wanted.

    Raises:
        ModelUnavailableError: No such name, tag, folder or repository, or its configuration is not timm's.
        WeightsError: A folder has no weights, several, or an adapter's.
    """
    if asked.id.startswith(HUB):
        return _from_hub(asked)
    if asked.id.startswith(LOCAL) or asked.id.startswith((".", "/", "~")) or "/" in asked.id:
        return _from_folder(asked)
    return _from_registry(asked)


def _from_folder(asked: ResolvedRequest) -> TimmModel:
    typed = asked.id.removeprefix(LOCAL)
    folder = Path(typed).expanduser()
    if not folder.is_dir():
        raise ModelUnavailableError(
            f'there is no folder "{typed}": expected timm:NAME, timm:local-dir:FOLDER or timm:hf-hub:OWNER/NAME'
        )
    name = folder.resolve().name
    weights = find_weights(folder) if asked.weights_kind == "pretrained" else None
    return saved_timm_model(folder, id=name, name=safe_name(name), weights=weights)


def _from_hub(asked: ResolvedRequest) -> TimmModel:
    repository, _, revision = asked.id.partition(":")[2].partition("@")
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise ModelUnavailableError(
            f'"{quoted(repository)}" names no repository: expected timm:hf-hub:OWNER/NAME or OWNER/NAME@REVISION'
        )
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    def download(file: str) -> Path:
        return Path(hf_hub_download(repository, file, revision=revision or None))

    with fetching(f"the configuration of {asked.spelling}"):
        folder = download("config.json").parent
    weights: Path | None = None
    if asked.weights_kind == "pretrained":
        with fetching(f"the weights of {asked.spelling}"):
            try:
                weights = download(_WEIGHTS[0])
            except EntryNotFoundError:
                weights = download(_WEIGHTS[1])
    return saved_timm_model(
        folder,
        id=asked.id.partition(":")[2],
        name=safe_name(repository.partition("/")[2]),
        weights=weights,
        weights_tag=folder.name,
    )


def saved_timm_model(
    folder: Path, *, id: str, name: str, weights: Path | None, weights_tag: str | None = None
) -> TimmModel:
    """Read `config.json` of a model that timm saved, also of one that transformers saved around it (`timm_wrapper`).

    Args:
        folder: Where `config.json` lies.
        id: How the manifest names the model.
        name: For files.
        weights: Its file of weights; None if others are wanted.
        weights_tag: Commit of a repository.

    Raises:
        ModelUnavailableError: There is no configuration, it is not timm's, or timm has no such architecture.
    """
    from timm.models._hub import _parse_model_cfg  # the one place that knows all forms it has had

    tree = _read_config(folder, name)
    what = f"config.json of {name} cannot be read by timm"
    with library_failures(ModelUnavailableError, what, "save the model again with timm.models.save_for_hf"):
        config, architecture, arguments = _parse_model_cfg(tree, {})
        known = {each.name for each in fields(PretrainedCfg)} - set(_PLACES)
        kept = {key: value for key, value in config.items() if key in known}
        PretrainedCfg(**kept)
        arguments = {key: _plain(value) for key, value in dict(arguments).items()}
        is_model = isinstance(architecture, str) and timm.is_model(architecture)
    if not is_model:
        raise ModelUnavailableError(
            f'timm {timm.__version__} has no model "{quoted(architecture)}", which config.json of {name} names.'
            f"{nearest(str(architecture)[:80], timm.list_models())}"
        )
    if steering := [key for key in arguments if _steers(key)]:
        raise ModelUnavailableError(
            f'config.json of {name}: model_args has "{quoted(steering[0])}", which is no argument of an architecture; '
            "take it out, and give other weights with --weights FILE"
        )
    return TimmModel(
        architecture=architecture,
        tag=str(kept.get("tag") or ""),
        config=kept | {"architecture": architecture},
        arguments=arguments,
        id=id,
        name=name,
        weights=weights,
        weights_tag=weights_tag,
    )


def _read_config(folder: Path, name: str) -> dict[str, Any]:
    if not (folder / "config.json").is_file():
        if (folder / "adapter_config.json").is_file():
            raise WeightsError(f'"{name}" holds an adapter (LoRA, PEFT), not a model; {MERGE_FIRST}')
        raise ModelUnavailableError(
            f'"{name}" has no config.json: expected a folder of timm.models.save_for_hf; '
            "a file of weights alone is given as --weights FILE with timm:NAME"
        )
    tree = read_json(folder / "config.json", f'config.json of "{name}"')
    if "architecture" not in tree:
        raise ModelUnavailableError(
            f'config.json of "{name}" names no architecture of timm: expected a folder of timm.models.save_for_hf; '
            "a checkpoint of transformers is given as hf:FOLDER"
        )
    return {key: value for key, value in tree.items() if value is not None}  # transformers writes nulls


def _steers(argument: str) -> bool:
    """Whether an argument says what timm loads from where, and not how the architecture is."""
    functions = (timm.create_model, build_model_with_cfg)
    known = {name for each in functions for name in inspect.signature(each).parameters} | set(_NOT_ITS_OWN)
    return argument.startswith("pretrained") or argument in known


def _plain(value: Any) -> Any:
    """Lists of JSON as the tuples that constructors compare with."""
    return tuple(value) if isinstance(value, list) else value


def find_weights(folder: Path) -> Path:
    """The one file of weights in a folder.

    Raises:
        WeightsError: There is none, or there are several without a usual name.
    """
    for name in (*_WEIGHTS[:1], _INDEX, *_WEIGHTS[1:]):
        if (folder / name).is_file():
            return folder / name
    found = sorted(path for path in folder.iterdir() if path.name.endswith(_SUFFIXES) and path.is_file())
    if (folder / "adapter_config.json").is_file() or any(path.stem == "adapter_model" for path in found):
        raise WeightsError(f'"{folder.name}" holds an adapter (LoRA, PEFT), not a model; {MERGE_FIRST}')
    if len(found) != 1:
        listed = first_few([path.name for path in found]) or "none"
        raise WeightsError(
            f'"{folder.name}" has {len(found)} files of weights ({listed}): expected {_WEIGHTS[0]}; '
            "name one with --weights"
        )
    return found[0]


def _from_registry(asked: ResolvedRequest) -> TimmModel:
    architecture, _, tag = asked.id.partition(".")
    if asked.alias:
        tag = asked.alias.weights
    if not timm.is_model(architecture):
        is_folder = Path(asked.id).is_dir()
        hint = (
            f" A folder is written timm:./{quoted(asked.id)}."
            if is_folder
            else nearest(architecture[:80], timm.list_models())
        )
        raise ModelUnavailableError(f'timm {timm.__version__} has no model "{quoted(architecture)}".{hint}')
    tags = [name.partition(".")[2] for name in timm.list_models(f"{architecture}.*", pretrained=True)]
    if tag and tag not in tags:
        known = f"it has {', '.join(tags)}" if tags else "it has none"
        raise ModelUnavailableError(
            f'timm {timm.__version__} has no weights "{quoted(tag)}" for {architecture}: {known}.'
            f"{nearest(tag[:80], tags)}"
        )
    if not tag and not tags and asked.weights_kind == "pretrained":
        raise ModelUnavailableError(f"timm has no pretrained weights for {architecture}; {_OTHER_MODEL}")
    config = timm.get_pretrained_cfg(architecture)
    if config is None:
        raise ModelUnavailableError(
            f"timm has no configuration for {architecture}: its input size is not known"
        )
    tag = tag or config.tag or ""
    full_name = f"{architecture}.{tag}" if tag else architecture
    return TimmModel(
        architecture=architecture,
        tag=tag,
        id=full_name,
        name=safe_name(asked.spelling.removeprefix("timm:")),
        weights_tag=tag,
    )
