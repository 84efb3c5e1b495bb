"""What an open_clip model is built as: its configuration, activation, preprocessing, and where its weights lie.

In: the name that the user gave: `NAME` or `NAME/TAG` of open_clip's registry,
`local-dir:FOLDER`, or `hf-hub:OWNER/NAME`; out: an `OpenClipModel`, which `source` builds and fills.

A tag of the registry has a configuration of its own. What it says of the activation and of photos is what its weights
were trained with, and comes before what the architecture of that name says. Of weights in a file it is a guess, and
noted as one.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import open_clip
from open_clip.pretrained import download_pretrained_from_hf
from open_clip.transform import PreprocessCfg, merge_preprocess_dict

from exporter.errors import ModelUnavailableError, UsageError, nearest, quoted
from exporter.models.fetch import fetching
from exporter.models.json_file import read_json
from exporter.models.model_options import check_options
from exporter.models.preprocessing.file import GUESSED
from exporter.models.preprocessing.preprocess import MAX_IMAGE_SIZE
from exporter.models.request import ResolvedRequest, as_pair

LOCAL, HUB = "local-dir:", "hf-hub:"
CONFIG_FILE = "open_clip_config.json"
WEIGHTS_FILES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
)
"""As open_clip looks for them in a folder, best first."""

TAGS_SHOWN = 6

_ACTIVATIONS = {True: "QuickGELU", False: "GELU"}


@dataclass(frozen=True, kw_only=True)
class OpenClipModel:
    """One model of open_clip, described.

    Attributes:
        name: As open_clip's own functions take it: a name of the registry, or `local-dir:FOLDER`.
        id: The name without folders of this machine.
        title: Its last part, for files.
        tag: Of the registry's weights, or the commit on the hub; empty without either.
        config: The architecture, with its own `quick_gelu`.
        quick_gelu: The activation to build with.
        preprocess: The keys of open_clip's `PreprocessCfg`.
        checkpoint: The weights in its folder; None where the registry knows them by the tag, or there are none.
        notes: What was taken from the tag, and what was assumed.
    """

    name: str
    id: str
    title: str
    tag: str
    config: Mapping[str, Any]
    quick_gelu: bool
    preprocess: Mapping[str, Any]
    checkpoint: Path | None = None
    notes: tuple[str, ...] = ()

    @property
    def own_size(self) -> tuple[int, int]:
        """Height and width that it was configured for."""
        return as_pair(self.config["vision_cfg"].get("image_size", 224))

    @property
    def has_timm_tower(self) -> bool:
        """Whether timm builds the image tower."""
        return "timm_model_name" in self.config["vision_cfg"]


def describe_model(asked: ResolvedRequest) -> OpenClipModel:
    """Find out what the model that was asked for is.

    Raises:
        ModelUnavailableError: No such model, tag or folder, or its configuration cannot be read.
        UsageError: An option that no model of open_clip has, or that contradicts the weights.
    """
    check_options(asked.request.options, {"quick_gelu": False}, asked.spelling)
    if asked.id.startswith((LOCAL, HUB)):
        return _from_folder(asked)
    return _from_registry(asked)


def _from_registry(asked: ResolvedRequest) -> OpenClipModel:
    name, tag = _name_and_tag(asked)
    config: dict[str, Any] = open_clip.get_model_config(name)
    said: dict[str, Any] = open_clip.get_pretrained_cfg(name, tag) if tag else {}
    quick_gelu, activation_notes = _activation(asked, config, said, tag)
    preprocess, preprocess_notes = _registered_preprocess(asked, name, tag, said)
    return OpenClipModel(
        name=name,
        id=f"{name}/{tag}" if tag else name,
        title=name,
        tag=tag,
        config=config,
        quick_gelu=quick_gelu,
        preprocess=preprocess,
        notes=(*activation_notes, *preprocess_notes),
    )


def _name_and_tag(asked: ResolvedRequest) -> tuple[str, str]:
    name, _, tag = asked.id.partition("/")
    if asked.alias:
        tag = asked.alias.weights
    names = open_clip.list_models()
    if name not in names:
        raise ModelUnavailableError(
            f'open_clip {open_clip.__version__} has no model "{name}".{nearest(name, names)}'
        )
    tags = open_clip.list_pretrained_tags_by_model(name)
    if tag and tag not in tags:
        raise ModelUnavailableError(
            f'open_clip has no weights "{tag}" for {name}: it has {", ".join(tags) or "none"}.'
            + nearest(tag, tags)
        )
    if not tag and asked.weights_kind == "pretrained":
        if not tags:
            raise ModelUnavailableError(f"open_clip has no weights for {name}; give --weights FILE or random")
        if len(tags) > 1:
            raise ModelUnavailableError(
                f"open_clip:{name} has {len(tags)} sets of weights: name one as open_clip:{name}/TAG, "
                f"for example {', '.join(tags[:TAGS_SHOWN])}"
            )
        tag = tags[0]
    return name, tag


def _activation(
    asked: ResolvedRequest, config: Mapping[str, Any], said: Mapping[str, Any], tag: str
) -> tuple[bool, tuple[str, ...]]:
    """Whether to build with QuickGELU. A tag of the registry only ever says that its weights need it."""
    own = bool(config.get("quick_gelu", False))
    given = asked.request.options.get("quick_gelu")
    trained = bool(said.get("quick_gelu", own))
    if given is not None:
        if said and asked.weights_kind == "pretrained" and given != trained:
            raise UsageError(
                f"--model-option quick_gelu={str(given).lower()}: the weights {tag} were trained with "
                f"{_ACTIVATIONS[trained]}; leave it out"
            )
        return _as_given(bool(given))
    if asked.weights_kind == "file":
        return trained, _assumed(trained, tag) if _has_activation(asked, config) else ()
    if trained != own:
        return trained, (f"activation: {_ACTIVATIONS[trained]}, as the weights {tag} were trained with",)
    if own and said and "quick_gelu" not in said:
        return own, (
            f"activation: QuickGELU, as the architecture says; of the weights {tag} nothing is said",
        )
    return own, ()


def _assumed(quick_gelu: bool, tag: str) -> tuple[str, ...]:
    """Of weights in a file; a tag beside them only says what its own weights were trained with."""
    as_of = f", as of tag {tag}" if tag else ""
    way_out = f"--model-option quick_gelu={str(not quick_gelu).lower()} builds the other"
    return (f"activation {_ACTIVATIONS[quick_gelu]} assumed{as_of}; the file does not say; {way_out}",)


def _as_given(quick_gelu: bool) -> tuple[bool, tuple[str, ...]]:
    return quick_gelu, (f"activation: {_ACTIVATIONS[quick_gelu]}, as given with --model-option",)


def _has_activation(asked: ResolvedRequest, config: Mapping[str, Any]) -> bool:
    """Whether the tower is one of open_clip's own transformers, which the activation belongs to."""
    if asked.request.tower == "text":
        return "hf_model_name" not in config["text_cfg"]
    vision = config["vision_cfg"]
    return "timm_model_name" not in vision and not isinstance(vision.get("layers"), list)


def _registered_preprocess(
    asked: ResolvedRequest, name: str, tag: str, said: Mapping[str, Any]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What the tag says of photos; for a file without one what all tags of the name agree on, or the default."""
    if asked.weights_kind != "file":
        return _merged(said), ()
    if said:
        return _merged(said), (
            f"{GUESSED}: as of tag {tag}, for the file does not say; --preprocess says it",
        )
    tags = open_clip.list_pretrained_tags_by_model(name)
    known = [_merged(open_clip.get_pretrained_cfg(name, tag)) for tag in tags]
    if known and all(each == known[0] for each in known):
        return known[0], (f"{GUESSED}: as all weights of {name} that open_clip lists; --preprocess says it",)
    return _merged({}), (f"{GUESSED}: open_clip's defaults, for the file does not say; --preprocess says it",)


def _from_folder(asked: ResolvedRequest) -> OpenClipModel:
    if asked.id.startswith(LOCAL):
        folder, tag = _folder(asked), ""
        checkpoint = _find_weights(folder) if asked.weights_kind == "pretrained" else None
        title = folder.resolve().name
        spelled = f"{LOCAL}{title}"
    else:
        folder, checkpoint = _fetched(asked)
        tag = folder.name if folder.parent.name == "snapshots" else ""
        spelled = asked.id
        title = asked.id.removeprefix(HUB).partition("@")[0].rpartition("/")[2]
    config, said = _read_config(folder / CONFIG_FILE)
    given, own = asked.request.options.get("quick_gelu"), bool(config.get("quick_gelu", False))
    quick_gelu, notes = (own, ()) if given is None else _as_given(bool(given))
    if not said:
        notes = (
            *notes,
            f"{GUESSED}: open_clip's defaults, for {CONFIG_FILE} does not say; --preprocess says it",
        )
    return OpenClipModel(
        name=f"{LOCAL}{folder}",
        id=spelled,
        title=title,
        tag=tag,
        config=config,
        quick_gelu=quick_gelu,
        preprocess=_merged(said),
        checkpoint=checkpoint,
        notes=notes,
    )


def _folder(asked: ResolvedRequest) -> Path:
    folder = Path(asked.id.removeprefix(LOCAL)).expanduser()
    if not folder.is_dir():
        raise ModelUnavailableError(
            f'there is no folder "{quoted(folder)}": expected open_clip:{LOCAL}FOLDER with {CONFIG_FILE} in it'
        )
    if not (folder / CONFIG_FILE).is_file():
        other = (
            "; a checkpoint of transformers is written hf:FOLDER"
            if (folder / "config.json").is_file()
            else ""
        )
        raise ModelUnavailableError(
            f'"{quoted(folder)}" has no {CONFIG_FILE}: expected a folder that open_clip saved{other}'
        )
    return folder


def _find_weights(folder: Path) -> Path:
    for name in WEIGHTS_FILES:
        if (folder / name).is_file():
            return folder / name
    others = sorted(
        path for suffix in ("safetensors", "bin", "pth", "pt") for path in folder.glob(f"*.{suffix}")
    )
    if len(others) == 1:
        return others[0]
    found = f"it has {len(others)} files of weights of other names" if others else "it has no weights"
    raise ModelUnavailableError(
        f'"{quoted(folder)}": expected {WEIGHTS_FILES[0]} or {WEIGHTS_FILES[2]}, and {found}; give --weights FILE'
    )


def _fetched(asked: ResolvedRequest) -> tuple[Path, Path | None]:
    repository, _, revision = asked.id.removeprefix(HUB).partition("@")
    if repository.count("/") != 1:
        raise ModelUnavailableError(f"{asked.spelling}: expected open_clip:{HUB}OWNER/NAME")
    pinned = {"revision": revision} if revision else {}
    with fetching(f"the configuration of {asked.spelling}"):
        config = Path(download_pretrained_from_hf(repository, filename=CONFIG_FILE, **pinned))
    if asked.weights_kind != "pretrained":
        return config.parent, None
    with fetching(f"the weights of {asked.spelling}"):
        return config.parent, Path(download_pretrained_from_hf(repository, **pinned))


def _read_config(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    what = f"{CONFIG_FILE} of {quoted(path.parent.name)}"
    tree = read_json(path, what)
    try:
        config, said = tree["model_cfg"], tree.get("preprocess_cfg") or {}
        towers = (config["vision_cfg"], config["text_cfg"])
        if not all(isinstance(each, dict) for each in (said, *towers)):
            raise ValueError("its vision_cfg, text_cfg and preprocess_cfg must be objects")
        size = towers[0].get("image_size", 224)
        sides = size if isinstance(size, list) and len(size) == 2 else [size]
        if not all(type(side) is int and 1 <= side <= MAX_IMAGE_SIZE for side in sides):
            raise ValueError(f"its image_size is {quoted(size)}")
    except KeyError as error:
        raise ModelUnavailableError(
            f"{what} has no {error}: expected model_cfg with vision_cfg and text_cfg, as open_clip writes it"
        ) from error
    except (ValueError, TypeError, AttributeError) as error:
        raise ModelUnavailableError(
            f"{what} cannot be read ({quoted(error)}): expected the JSON object that open_clip writes"
        ) from error
    return config, said


def _merged(said: Mapping[str, Any]) -> dict[str, Any]:
    merged: dict[str, Any] = merge_preprocess_dict(asdict(PreprocessCfg()), dict(said))
    return merged
