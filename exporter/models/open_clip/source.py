"""Models of open_clip: `open_clip:NAME` or `NAME/TAG`, `open_clip:local-dir:FOLDER`, `open_clip:hf-hub:OWNER/NAME`.

The image tower is the default; `--tower text` gives the text tower as it is.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from exporter.errors import ModelUnavailableError, library_failures, quoted
from exporter.models.fetch import fetching
from exporter.models.loaded import ExampleInput, LoadedModel, Tokenize
from exporter.models.preprocessing.preprocess import Preprocess, PreprocessError
from exporter.models.preprocessing.resize import Interpolation
from exporter.models.quiet import quiet
from exporter.models.request import ResolvedRequest, Tower, check_multiple, safe_name
from exporter.models.weights import build_random, freeze, sha256_of

try:
    import open_clip

    from exporter.models.open_clip.config import CONFIG_FILE, LOCAL, OpenClipModel, describe_model
    from exporter.models.open_clip.weights import fill_from_file
except ImportError as error:
    raise ModelUnavailableError('open_clip is not installed: pip install "exporter[open-clip]"') from error


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

    A weights file holds the state dict of the whole model, both towers, or for the image tower of that alone.

    Raises:
        ModelUnavailableError: No such model or tag, or the weights cannot be fetched.
        UsageError: The image size is not a multiple of the patch, or an option does not fit.
        WeightsError: A weights file that does not fit.
    """
    model = describe_model(asked)
    size = _image_size(asked, model)
    is_text = asked.request.tower == "text"
    preprocess = None if is_text else asked.preprocess or describe_preprocess(model.preprocess, size)
    module, notes = _build(asked, model, size)
    return LoadedModel(
        module=module,
        source=asked.source,
        id=model.id,
        name=safe_name((asked.alias.name if asked.alias else model.title) + ("-text" if is_text else "")),
        output_names=("embedding",),
        inputs=_inputs(model.config, size, is_text=is_text),
        preprocess=preprocess,
        weights_kind=asked.weights_kind,
        weights_tag=model.tag or None if asked.weights_kind == "pretrained" else None,
        weights_sha256=sha256_of(module.state_dict()),
        notes=(*model.notes, *notes),
        tokenize=_tokenize(model) if is_text else None,
    )


def _image_size(asked: ResolvedRequest, model: OpenClipModel) -> tuple[int, int]:
    if asked.image_size in (None, model.own_size):
        return model.own_size
    check_multiple(asked.image_size, _patch_size(asked, model.config["vision_cfg"]), asked.spelling)
    return asked.image_size


def _patch_size(asked: ResolvedRequest, vision: Mapping[str, Any]) -> int:
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


def _build(
    asked: ResolvedRequest, model: OpenClipModel, size: tuple[int, int]
) -> tuple[nn.Module, tuple[str, ...]]:
    build, tower = partial(_create, model, size), partial(_tower, asked.request.tower)
    if asked.weights_kind == "random":
        with _building(model):
            return build_random(lambda: tower(build()), asked.request.seed), ()
    if asked.weights_kind == "pretrained" and model.checkpoint is None:
        with fetching(f"the weights of open_clip:{model.id}"):
            return freeze(tower(build(pretrained=model.tag))), ()
    with _building(model):
        return _from_file(asked, model, size, model.checkpoint or asked.weights_path)


def _from_file(
    asked: ResolvedRequest, model: OpenClipModel, size: tuple[int, int], path: Path
) -> tuple[nn.Module, tuple[str, ...]]:
    """Filled from a file; an image tower of timm is brought to another size when it is filled, as open_clip does."""
    first = model.own_size if model.has_timm_tower else size
    module, is_image_tower, notes = fill_from_file(partial(_create, model, first), path, asked.request.tower)
    tower: Any = module if is_image_tower else _tower(asked.request.tower, module)
    if first != size:
        tower.set_input_size(size)
        notes = (*notes, f"positions resampled for {size[0]}x{size[1]} pixels, as open_clip does")
    return freeze(tower), notes


@contextmanager
def _building(model: OpenClipModel) -> Iterator[None]:
    """Quiet; a text tower of transformers has its configuration on the hub, a folder may say what cannot be built."""
    from_hub = "hf_model_name" in model.config["text_cfg"]
    what = f"open_clip:{quoted(model.id)}: open_clip cannot build what its {CONFIG_FILE} says"
    with (
        library_failures(ModelUnavailableError, what, "fix the file")
        if model.name.startswith(LOCAL)
        else nullcontext(),
        fetching(f"the configuration of open_clip:{model.id}") if from_hub else quiet(),
    ):
        yield


def _create(model: OpenClipModel, size: tuple[int, int], *, pretrained: str | None = None) -> nn.Module:
    device = torch.get_default_device()
    is_other = model.quick_gelu != bool(model.config.get("quick_gelu", False))
    module: nn.Module = open_clip.create_model(
        model.name,
        pretrained=pretrained,
        load_weights=pretrained is not None,
        device=device,
        force_image_size=None if size == model.own_size else size,
        pretrained_text=False,
        **({"quick_gelu": model.quick_gelu} if is_other else {}),
    )
    return module


def _tower(tower: Tower, clip: Any) -> nn.Module:
    if tower == "text":
        return TextTower(clip)
    visual: nn.Module = clip.visual
    return visual


def _tokenize(model: OpenClipModel) -> Tokenize:
    """open_clip's own tokenizer. CLIP's vocabulary is part of the library, others come from the hub or the folder."""

    @cache
    def tokenizer() -> Any:
        is_local = model.name.startswith(LOCAL)
        from_hub = "hf_tokenizer_name" in model.config["text_cfg"] and not is_local
        with fetching(
            f"the tokenizer of open_clip:{model.id}",
            via="disk" if is_local else "hub" if from_hub else "url",
            way_out="put the tokenizer's files into the folder"
            if is_local
            else "connect and try again; it is cached from then on",
        ):
            return open_clip.get_tokenizer(model.name)

    def tokenize(texts: Sequence[str]) -> npt.NDArray[np.int64]:
        ids: npt.NDArray[np.int64] = tokenizer()(list(texts)).numpy()
        return ids

    return tokenize


def _inputs(config: Mapping[str, Any], size: tuple[int, int], *, is_text: bool) -> dict[str, ExampleInput]:
    if not is_text:
        return {"images": ExampleInput(shape=(3, *size), dtype=torch.float32)}
    text = config["text_cfg"]
    shape, vocabulary = (text.get("context_length", 77),), text.get("vocab_size", 49408)
    return {"input_ids": ExampleInput(shape=shape, dtype=torch.int64, vocabulary=vocabulary)}


def describe_preprocess(config: Mapping[str, Any], size: tuple[int, int]) -> Preprocess:
    """What `image_transform_v2` does for evaluation, which converts to RGB after the crop.

    Args:
        config: The keys of `PreprocessCfg`.
        size: Height and width of the model's input.

    Raises:
        PreprocessError: It does what a `Preprocess` cannot say.
    """
    for key, known in {
        "resize_mode": ("shortest", "squash"),
        "interpolation": ("bicubic", "bilinear"),
    }.items():
        if config[key] not in known:
            raise PreprocessError(
                f'{key} "{quoted(config[key])}" of open_clip is not supported: expected {" or ".join(known)}'
            )
    is_squash = config["resize_mode"] == "squash"
    # For a size that is not square the library's shortest side is resized with its own default.
    filtered: Interpolation = config["interpolation"] if is_squash or size[0] == size[1] else "bicubic"
    mean, std = (
        (value,) * 3 if isinstance(value, int | float) else value for value in (config["mean"], config["std"])
    )
    return Preprocess(
        image_size=size,
        interpolation=filtered,
        crop_fraction=1.0,
        mean=tuple(mean) if isinstance(mean, list) else mean,
        std=tuple(std) if isinstance(std, list) else std,
        resize_mode="squash" if is_squash else "crop",
        to_rgb="last",
    )
