"""Models of Hugging Face transformers: `hf:REPO` (or `hf:REPO@REVISION`) and `hf:FOLDER`.

Any model of equal tokens, one per patch: ViT, DeiT, BEiT, DINOv2 and DINOv3, CLIP, SigLIP and what is built like them;
of a model of images and texts the image tower, or with `--tower text` the text tower. Output objects are unwrapped to
one tensor, so that the module can be captured. What timm made and transformers wraps is loaded too, and text encoders
(`hf.encoder`).
"""

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from exporter.errors import ModelUnavailableError, UsageError
from exporter.models.class_names import labelled_names
from exporter.models.hf.architectures import ATTENDS_TO_PADDING, MAE
from exporter.models.hf.checkpoint import is_of_diffusers, read_config_json
from exporter.models.hf.dense import find_dense_tower
from exporter.models.hf.encoder import count_positions, is_text_encoder, load_encoder
from exporter.models.hf.errors import explained, reading
from exporter.models.hf.options import apply_options
from exporter.models.hf.patches import takes_spectrograms
from exporter.models.hf.place import find_place
from exporter.models.hf.preprocess import Look, read_preprocess
from exporter.models.hf.rules import find_tower
from exporter.models.hf.timm_wrapper import is_of_timm, load_timm_wrapper
from exporter.models.hf.tokenizer import lazy_tokenizer, mask_padding
from exporter.models.hf.tower import HFTower, try_on_meta
from exporter.models.hf.weights import Weights, find_weights, fit_to_state, load_tower
from exporter.models.loaded import ExampleInput, LoadedModel
from exporter.models.request import (
    ImageSize,
    ResolvedRequest,
    check_multiple,
    check_no_length,
    safe_name,
    size_text,
)
from exporter.models.weights import freeze, sha256_of

try:
    import transformers
except ImportError as error:
    raise ModelUnavailableError('transformers is not installed: pip install "exporter[hf]"') from error

_CONFIG_ADVICE = "correct its config.json, or fetch it again"


def load_hf(asked: ResolvedRequest) -> LoadedModel:
    """Load a transformers model from a folder, or from the hub through its own cache.

    A weights file has the keys of the architecture that `config.json` names; the classes, image size and registers
    of the tower are taken from it. The positional table is resampled afterwards if another size was asked for.

    Raises:
        ModelUnavailableError: Not a supported checkpoint, or it cannot be fetched.
        UsageError: The image size is not a multiple of the patch, or there is no such tower.
        WeightsError: Weights that do not fit.
    """
    place = find_place(asked)
    with reading("the configuration", place, advice=_CONFIG_ADVICE):
        config_json = read_config_json(place)
        place = place.pinned_to_commit()
    if is_of_diffusers(config_json):
        from exporter.models.diffusers.source import load_diffusers  # it alone needs diffusers

        return load_diffusers(asked, place, config_json)
    if is_of_timm(config_json):
        return load_timm_wrapper(asked, place)
    with reading("the configuration", place, advice=_CONFIG_ADVICE):
        config = transformers.AutoConfig.from_pretrained(place.where, **place.pinned, trust_remote_code=False)
    with explained("the model", place, advice=_CONFIG_ADVICE):  # a configuration may hold values of any kind
        if asked.request.tower == "image" and is_text_encoder(asked.spelling, config):
            return load_encoder(asked, place, config)
        check_no_length(asked)
        tower = apply_options(_tower(asked, config), asked)
        weights = find_weights(asked, place, tower)
        if asked.request.tower == "text":
            return _load_text(weights, tower, config)
        load_side = _load_spectrograms if takes_spectrograms(tower.config) else _load_image
        return load_side(weights, tower, config)


def _tower(asked: ResolvedRequest, config: Any) -> HFTower:
    if asked.request.outputs != "own":
        return find_dense_tower(asked.spelling, config)
    return find_tower(asked.spelling, config, asked.request.tower)


def _load_image(weights: Weights, tower: HFTower, config: Any) -> LoadedModel:
    asked, place = weights.asked, weights.place
    own, notes = tower.image_size, (*tower.notes, *weights.notes)
    kinds = (tower.config.model_type, config.model_type) if tower.path else (config.model_type,)
    if weights.state is not None:
        tower, taken = fit_to_state(weights, tower)
        notes = (*notes, *taken)
    size = asked.image_size or (tower.image_size if tower.image_size != own else None)
    preprocess, guessed = read_preprocess(
        Look(
            asked=asked,
            place=place,
            model_types=kinds,
            own_size=tower.image_size,
            size=size,
            channels=tower.channels,
            accepts=lambda each: try_on_meta(tower, each) is not None,
        )
    )
    size = preprocess.image_size if preprocess else size or tower.image_size
    check_multiple(size, tower.patch_size, asked.spelling)
    loaded = _with_classes(_loaded(weights, tower, config, freeze(load_tower(weights, tower, size))), tower)
    return replace(
        loaded,
        inputs={"images": ExampleInput(shape=(tower.channels, *size), dtype=torch.float32)},
        preprocess=preprocess,
        notes=(*notes, *_size_notes(asked, tower.image_size, size), *guessed, *loaded.notes),
    )


def _with_classes(loaded: LoadedModel, tower: HFTower) -> LoadedModel:
    """With the names of a classifier's classes and no notes but on them; without classes, it gives features."""
    if tower.output_name != "logits":
        return replace(loaded, notes=())
    config = tower.build.config
    if not config.num_labels:
        return replace(loaded, output_names=("features",), notes=())
    class_names, unnamed = labelled_names(config, config.num_labels)
    return replace(loaded, class_names=class_names, notes=unnamed)


def _load_spectrograms(weights: Weights, tower: HFTower, config: Any) -> LoadedModel:
    asked, notes = weights.asked, (*tower.notes, *weights.notes)
    for option, given in (("--preprocess", asked.request.preprocess), ("--image-size", asked.image_size)):
        if given is not None:
            raise UsageError(f"{option} says nothing about spectrograms: leave it out for {asked.spelling}")
    if weights.state is not None:
        tower, taken = fit_to_state(weights, tower)
        notes = (*notes, *taken)
    loaded = _with_classes(_loaded(weights, tower, config, freeze(load_tower(weights, tower, None))), tower)
    shape = (tower.config.max_length, tower.config.num_mel_bins)
    return replace(
        loaded,
        inputs={"input_values": ExampleInput(shape=shape, dtype=torch.float32)},
        notes=(*notes, *loaded.notes),
    )


def _size_notes(asked: ResolvedRequest, own: ImageSize, size: ImageSize) -> tuple[str, ...]:
    is_resampled = asked.weights_kind != "random"
    if size == own:
        return ()
    if asked.image_size is None:
        resampled = "; positions resampled" if is_resampled else ""
        return (
            f"image size {size_text(size)} is the processor's; the model's own is {size_text(own)}{resampled}",
        )
    if not is_resampled:
        return ()
    return (f"positions are resampled from {size_text(own)} to {size_text(size)}, as transformers does",)


def _load_text(weights: Weights, tower: HFTower, config: Any) -> LoadedModel:
    asked, place = weights.asked, weights.place
    module = freeze(load_tower(weights, tower, None))
    loaded = _loaded(weights, tower, config, module)
    padding = tower.build.padding
    if padding is None and tower.config.model_type not in ATTENDS_TO_PADDING:
        padding = mask_padding(module, tower.config, asked.spelling)
    ids = replace(loaded.example_input, shape=(count_positions(module, tower.config),))
    tokenize = lazy_tokenizer(
        asked.spelling, place.where, place.commit or place.revision, ids, place.via, padding
    )
    return replace(loaded, name=safe_name(f"{place.name}-text"), inputs={"input_ids": ids}, tokenize=tokenize)


def _loaded(weights: Weights, tower: HFTower, config: Any, module: nn.Module) -> LoadedModel:
    """What both towers have in common; of an image tower, the input and its preprocessing are still to be said."""
    asked, place = weights.asked, weights.place
    ids = ExampleInput(
        shape=(getattr(tower.config, "max_position_embeddings", 0),),
        dtype=torch.int64,
        vocabulary=getattr(tower.config, "vocab_size", None),
    )
    return LoadedModel(
        module=module,
        source=asked.source,
        id=place.name if place.folder else asked.id,
        name=safe_name(place.name),
        output_names=(tower.output_name,),
        inputs={"input_ids": ids},
        weights_kind=asked.weights_kind,
        weights_tag=place.commit if asked.weights_kind == "pretrained" else None,
        weights_sha256=sha256_of(module.state_dict()),
        proportional_attention=config.model_type not in MAE,
        notes=(*tower.notes, *weights.notes),
        read_by=tower.architecture if tower.path and tower.output_name == "tokens" else None,
    )
