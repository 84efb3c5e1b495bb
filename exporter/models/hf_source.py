"""Models of Hugging Face transformers: `hf:REPO` (or `hf:REPO@REVISION`) and `hf:FOLDER`.

ViT, DeiT, DINOv2 (with and without registers), CLIP and SigLIP; of the last two the image tower, or with
`--tower text` the text tower. Output objects are unwrapped to one tensor, so that the module can be captured.
"""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from exporter.errors import ModelUnavailableError, UsageError, nearest
from exporter.models.fetch import Via, fetching
from exporter.models.hf_architectures import DEFAULT_ARCHITECTURES, IMAGE_TOWERS, TEXT_TOWERS, HFTower, Pick
from exporter.models.hf_preprocess import read_preprocess
from exporter.models.hf_tokenizer import lazy_tokenizer
from exporter.models.loaded import ExampleInput, LoadedModel
from exporter.models.quiet import quiet
from exporter.models.request import ResolvedRequest, check_multiple, safe_name
from exporter.models.weights import (
    build_random,
    freeze,
    read_state_dict,
    report_wrong_keys,
    sha256_of,
)

try:
    import transformers
except ImportError as error:
    raise ModelUnavailableError('transformers is not installed: pip install "exporter[hf]"') from error

POSITION_TABLES = ("position_embeddings", "position_embedding.weight")


class Unwrapped(nn.Module):
    """A transformers model that takes one tensor and returns one tensor instead of an output object."""

    def __init__(self, model: nn.Module, pick: Pick) -> None:
        super().__init__()
        self.model = model
        self.pick = pick

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Run the model on images (B, 3, H, W) or token ids (B, context); returns (B, K)."""
        output = self.model(inputs)
        if self.pick == "class_token":
            class_token: torch.Tensor = output.last_hidden_state[:, 0]
            return class_token
        picked: torch.Tensor = getattr(output, self.pick)
        return picked


def load_hf(asked: ResolvedRequest) -> LoadedModel:
    """Load a transformers model from a folder, or from the hub through its own cache.

    A weights file has the keys of the architecture that `config.json` names, at its own image size; the
    positional table is resampled afterwards if another size was asked for.

    Raises:
        ModelUnavailableError: Not a supported checkpoint, or it cannot be fetched.
        UsageError: The image size is not a multiple of the patch, or there is no such tower.
        WeightsError: Weights that do not fit.
    """
    where, revision = _location(asked)
    config = _read_config(asked, where, revision)
    tower = _tower(asked, config)
    tower_config = _tower_config(config, tower)
    is_text = asked.request.tower == "text"
    preprocess = (
        None
        if is_text
        else read_preprocess(asked, config.model_type, tower_config.image_size, where, revision)
    )
    size = 0 if preprocess is None else preprocess.image_size[0]
    if preprocess is not None:
        check_multiple(size, tower_config.patch_size, asked.spelling)
    module = freeze(Unwrapped(_build(asked, tower, tower_config, size, (where, revision)), tower.pick))
    example = _example_input(tower_config, size, is_text=is_text)
    tokenize = lazy_tokenizer(asked.spelling, where, revision, example, _via(where)) if is_text else None
    return LoadedModel(
        module=module,
        source=asked.source,
        id=Path(where).resolve().name if Path(where).is_dir() else asked.id,
        alias=None,
        name=safe_name(Path(where).resolve().name + ("-text" if is_text else "")),
        input_name="input_ids" if is_text else "images",
        output_names=(tower.output_name,),
        example_input=example,
        preprocess=preprocess,
        weights_kind=asked.weights_kind,
        weights_tag=getattr(config, "_commit_hash", None) if asked.weights_kind == "pretrained" else None,
        weights_sha256=sha256_of(module.state_dict()),
        proportional_attention=config.model_type != "vit_mae",
        tokenize=tokenize,
    )


def _location(asked: ResolvedRequest) -> tuple[str, str | None]:
    """The folder, or the hub repository and its revision."""
    folder = Path(asked.id).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelUnavailableError(
                f'"{folder}" has no config.json: expected a folder of save_pretrained'
            )
        return str(folder), None
    if asked.id.startswith((".", "/", "~")) or asked.id.count("/") > 1:
        raise ModelUnavailableError(f'there is no folder "{folder}": expected hf:FOLDER or hf:OWNER/NAME')
    repository, _, revision = asked.id.partition("@")
    return repository, revision or None


def _read_config(asked: ResolvedRequest, where: str, revision: str | None) -> Any:
    with fetching(f"the configuration of {asked.spelling}", via=_via(where)):
        return transformers.AutoConfig.from_pretrained(where, **_pinned(revision), trust_remote_code=False)


def _tower(asked: ResolvedRequest, config: Any) -> HFTower:
    named = getattr(config, "architectures", None) or [
        DEFAULT_ARCHITECTURES.get(config.model_type, config.model_type)
    ]
    architecture = named[0]
    towers = TEXT_TOWERS if asked.request.tower == "text" else IMAGE_TOWERS
    if architecture in towers:
        return towers[architecture]
    if architecture in IMAGE_TOWERS or architecture in TEXT_TOWERS:
        raise UsageError(
            f"{asked.spelling} is a {architecture}, which has no {asked.request.tower} tower: "
            f"expected one of {', '.join(towers)}; change --tower"
        )
    raise ModelUnavailableError(
        f"{asked.spelling} is a {architecture}: expected ViT, DeiT, DINOv2, CLIP or SigLIP."
        + nearest(architecture, towers)
    )


def _tower_config(config: Any, tower: HFTower) -> Any:
    """The configuration of one tower, with the joint embedding's width, which CLIP keeps a level up."""
    if tower.class_name == "ViTModel" and config.model_type == "vit_mae":
        kept = {
            key: value
            for key, value in config.to_dict().items()
            if key not in ("model_type", "architectures")
        }
        return transformers.ViTConfig(**kept)
    part = getattr(config, tower.sub_config, None) if tower.sub_config else None
    if part is None:
        return copy.deepcopy(config)
    part = copy.deepcopy(part)
    if config.model_type == "clip":
        part.projection_dim = config.projection_dim
    return part


def _build(
    asked: ResolvedRequest, tower: HFTower, config: Any, size: int, place: tuple[str, str | None]
) -> nn.Module:
    model_class = getattr(transformers, tower.class_name)
    arguments = dict(tower.arguments)
    if asked.weights_kind == "random":
        resized = _resized(config, size)
        with quiet():
            return build_random(
                lambda: model_class._from_config(resized, attn_implementation="sdpa", **arguments),
                asked.request.seed,
            )
    where, revision = place
    if asked.weights_kind == "file":
        state = read_state_dict(asked.weights_path)
        model = _load(
            model_class, None, tower, asked.weights_path, config=config, state_dict=state, **arguments
        )
    else:
        with fetching(f"the weights of {asked.spelling}", via=_via(where)):
            model = _load(model_class, where, tower, where, config=config, **_pinned(revision), **arguments)
    if not size or size == config.image_size:
        return model
    resampled = resample_positions(
        model.state_dict(), config.image_size // config.patch_size, size // config.patch_size
    )
    return _load(
        model_class, None, tower, where, config=_resized(config, size), state_dict=resampled, **arguments
    )


def _load(
    model_class: Any, source: str | None, tower: HFTower, where: Path | str, **arguments: Any
) -> nn.Module:
    """`from_pretrained`, strictly: whatever it would only warn about is an error."""
    with quiet():
        model, report = model_class.from_pretrained(
            source,
            dtype=torch.float32,
            attn_implementation="sdpa",
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **arguments,
        )
    unexpected = sorted(key for key in report["unexpected_keys"] if not _is_dropped(key, tower))
    misshaped = sorted(
        f"{key} (expected {tuple(expected)}, got {tuple(got)})"
        for key, got, expected in report["mismatched_keys"]
    )
    report_wrong_keys(sorted(report["missing_keys"]), unexpected, misshaped, where)
    module: nn.Module = model
    return module


def _is_dropped(key: str, tower: HFTower) -> bool:
    """Whether a checkpoint's key belongs to another part, or is a table that is computed."""
    return key.startswith(tower.dropped) or key.endswith("position_ids")


def resample_positions(
    state: Mapping[str, torch.Tensor], own_side: int, side: int
) -> dict[str, torch.Tensor]:
    """Resample the positional table to another grid of patches, bicubically; prefix tokens keep theirs.

    Args:
        state: A state dict; its table is (..., prefix + own_side^2, C).
        own_side: Patches per side in the table.
        side: Patches per side wanted.
    """
    resampled = dict(state)
    for name, table in state.items():
        if name.endswith(POSITION_TABLES):
            rows = table.reshape(-1, table.shape[-1])
            prefix, grid = rows.tensor_split([rows.shape[0] - own_side**2])
            planes = grid.T.reshape(1, -1, own_side, own_side)
            larger = nn.functional.interpolate(planes, size=(side, side), mode="bicubic", align_corners=False)
            patches = larger.reshape(table.shape[-1], -1).T
            resampled[name] = torch.cat([prefix, patches]).reshape(*table.shape[:-2], -1, table.shape[-1])
    return resampled


def _resized(config: Any, size: int) -> Any:
    config = copy.deepcopy(config)
    if size:
        config.image_size = size
    return config


def _via(where: str) -> Via:
    return "disk" if Path(where).is_dir() else "hub"


def _pinned(revision: str | None) -> dict[str, str]:
    return {"revision": revision} if revision else {}


def _example_input(config: Any, size: int, *, is_text: bool) -> ExampleInput:
    if is_text:
        return ExampleInput(
            shape=(config.max_position_embeddings,), dtype=torch.int64, vocabulary=config.vocab_size
        )
    return ExampleInput(shape=(config.num_channels, size, size), dtype=torch.float32)
