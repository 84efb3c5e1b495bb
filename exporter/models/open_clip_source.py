"""Models of open_clip: `open_clip:NAME` or `open_clip:NAME/TAG`, e.g. `ViT-B-32/laion2b_s34b_b79k`.

The image tower is the default; `--tower text` gives the text tower as it is.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from exporter.errors import ModelUnavailableError, nearest
from exporter.models.fetch import fetching
from exporter.models.loaded import ExampleInput, LoadedModel, Tokenize
from exporter.models.preprocess import Preprocess
from exporter.models.quiet import quiet
from exporter.models.request import ResolvedRequest, check_multiple, safe_name
from exporter.models.resize import Interpolation
from exporter.models.weights import build_from_file, build_random, freeze, sha256_of

try:
    import open_clip
except ImportError as error:
    raise ModelUnavailableError('open_clip is not installed: pip install "exporter[open-clip]"') from error

TAGS_SHOWN = 6

_INTERPOLATIONS: dict[str, Interpolation] = {"bicubic": "bicubic", "bilinear": "bilinear"}


class TextTower(nn.Module):
    """The text side of a CLIP: token ids (B, context) int64 to embeddings (B, C)."""

    def __init__(self, clip: Any) -> None:
        super().__init__()
        if hasattr(clip, "visual"):
            del clip.visual
        self.clip: Any = clip

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Embed token ids; not normalised."""
        embedding: torch.Tensor = self.clip.encode_text(input_ids)
        return embedding


def load_open_clip(asked: ResolvedRequest) -> LoadedModel:
    """Load one tower of an open_clip model.

    A weights file holds the state dict of the whole model, both towers.

    Raises:
        ModelUnavailableError: No such model or tag, or the weights cannot be fetched.
        UsageError: The image size is not a multiple of the patch.
        WeightsError: A weights file that does not fit.
    """
    name, tag = _name_and_tag(asked)
    config = open_clip.get_model_config(name)
    size = _image_size(asked, config)
    is_text = asked.request.tower == "text"
    module = _build(asked, name, tag, size)
    return LoadedModel(
        module=module,
        source=asked.source,
        id=f"{name}/{tag}" if tag else name,
        alias=asked.alias.name if asked.alias else None,
        name=safe_name((asked.alias.name if asked.alias else name) + ("-text" if is_text else "")),
        input_name="input_ids" if is_text else "images",
        output_names=("embedding",),
        example_input=_example_input(config, size, is_text=is_text),
        preprocess=None if is_text else _preprocess(name, tag, size),
        weights_kind=asked.weights_kind,
        weights_tag=tag if asked.weights_kind == "pretrained" else None,
        weights_sha256=sha256_of(module.state_dict()),
        tokenize=_tokenize(name) if is_text else None,
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


def _image_size(asked: ResolvedRequest, config: dict[str, Any]) -> tuple[int, int]:
    own = config["vision_cfg"].get("image_size", 224)
    height, width = (own, own) if isinstance(own, int) else own
    if asked.image_size in (None, (height, width)):
        return height, width
    check_multiple(asked.image_size, _patch_size(asked, config["vision_cfg"]), asked.spelling)
    return asked.image_size


def _patch_size(asked: ResolvedRequest, vision: dict[str, Any]) -> int:
    if "timm_model_name" not in vision:
        patch = vision.get("patch_size", 16)
        return int(patch)
    import timm

    with quiet(), torch.device("meta"):
        embedding = getattr(timm.create_model(vision["timm_model_name"]), "patch_embed", None)
    if embedding is None:
        raise ModelUnavailableError(
            f"{asked.spelling} has no patch embedding to resize: leave --image-size out"
        )
    return int(max(embedding.patch_size))


def _build(asked: ResolvedRequest, name: str, tag: str, size: tuple[int, int]) -> nn.Module:
    build = partial(_create, name, size)
    tower = partial(_tower, asked.request.tower)
    match asked.weights_kind:
        case "pretrained":
            with fetching(f"the weights of open_clip:{name}/{tag}"):
                return freeze(tower(build(pretrained=tag)))
        case "random":
            with _building(name):
                return build_random(lambda: tower(build()), asked.request.seed)
        case _:
            with _building(name):
                return tower(build_from_file(build, asked.weights_path))


def _building(name: str) -> AbstractContextManager[None]:
    """Quiet; a text tower of transformers has its configuration on the hub."""
    if "hf_model_name" in open_clip.get_model_config(name)["text_cfg"]:
        return fetching(f"the configuration of open_clip:{name}")
    return quiet()


def _create(name: str, size: tuple[int, int], *, pretrained: str | None = None) -> nn.Module:
    device = torch.get_default_device()
    own = open_clip.get_model_config(name)["vision_cfg"].get("image_size", 224)
    module: nn.Module = open_clip.create_model(
        name,
        pretrained=pretrained,
        device=device,
        force_image_size=None if own in (size, list(size), size[0]) else size,
        pretrained_text=False,
    )
    return module


def _tower(tower: str, clip: Any) -> nn.Module:
    if tower == "text":
        return TextTower(clip)
    visual: nn.Module = clip.visual
    return visual


def _tokenize(name: str) -> Tokenize:
    """open_clip's own tokenizer. CLIP's vocabulary is part of the library, others come from the hub."""

    @cache
    def tokenizer() -> Any:
        from_hub = "hf_tokenizer_name" in open_clip.get_model_config(name)["text_cfg"]
        with fetching(
            f"the tokenizer of open_clip:{name}",
            via="hub" if from_hub else "url",
            way_out="connect and try again; it is cached from then on",
        ):
            return open_clip.get_tokenizer(name)

    def tokenize(texts: Sequence[str]) -> npt.NDArray[np.int64]:
        ids: npt.NDArray[np.int64] = tokenizer()(list(texts)).numpy()
        return ids

    return tokenize


def _example_input(config: dict[str, Any], size: tuple[int, int], *, is_text: bool) -> ExampleInput:
    if not is_text:
        return ExampleInput(shape=(3, *size), dtype=torch.float32)
    text = config["text_cfg"]
    return ExampleInput(
        shape=(text.get("context_length", 77),), dtype=torch.int64, vocabulary=text.get("vocab_size", 49408)
    )


def _preprocess(name: str, tag: str, size: tuple[int, int]) -> Preprocess:
    """As `image_transform_v2` for evaluation, which converts to RGB after the crop."""
    config: dict[str, Any] = {"interpolation": "bicubic", "resize_mode": "shortest"}
    config |= {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
    config |= open_clip.get_pretrained_cfg(name, tag) if tag else {}
    if config["resize_mode"] not in ("shortest", "squash"):
        raise ModelUnavailableError(
            f'resize mode "{config["resize_mode"]}" of open_clip:{name} is not supported: expected shortest or squash'
        )
    is_squash = config["resize_mode"] == "squash"
    # For a size that is not square the library's shortest side is resized with its own default.
    filtered = config["interpolation"] if is_squash or size[0] == size[1] else "bicubic"
    return Preprocess(
        image_size=size,
        interpolation=_INTERPOLATIONS[filtered],
        crop_fraction=1.0,
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        resize_mode="squash" if is_squash else "crop",
        to_rgb="last",
    )
