"""Models of diffusers: `hf:FOLDER` whose `config.json` names one of its classes.

A folder of `save_pretrained` (`unet` or `transformer` of a pipeline), or a repository that is one. What is exported is
one step: latents of any noise level to what the model predicts of them; the loop over steps stays the caller's.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from exporter.errors import ModelUnavailableError, TargetUnavailableError, UsageError, WeightsError
from exporter.models.checkpoint.read import read_checkpoint
from exporter.models.diffusers.denoisers import CLASS_NAMES, denoiser
from exporter.models.hf.errors import explained
from exporter.models.hf.place import Place
from exporter.models.json_file import read_json
from exporter.models.loaded import LoadedModel
from exporter.models.model_options import building_with, check_options, constructor_options
from exporter.models.request import ImageSize, ResolvedRequest, as_pair, check_image_tower, safe_name
from exporter.models.weights import build_random, fill, freeze, sha256_of

try:
    import diffusers
except ImportError as error:
    raise TargetUnavailableError('diffusers is not installed: pip install "exporter[diffusers]"') from error

_WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.safetensors.index.json")
_DEFAULT_STEPS = 1000
_ADVICE = "correct its config.json, or fetch it again"


def load_diffusers(asked: ResolvedRequest, place: Place, config: Mapping[str, Any]) -> LoadedModel:
    """Load a denoiser.

    Args:
        asked: the request.
        place: of the checkpoint.
        config: the content of its `config.json`.

    Raises:
        ModelUnavailableError: another class of diffusers, or conditions that are not covered.
        UsageError: an option that means nothing for latents, or that the class does not have.
        WeightsError: weights that are missing or do not fit.
    """
    _check_request(asked)
    name = config["_class_name"]
    if name not in CLASS_NAMES:
        raise ModelUnavailableError(
            f"{asked.spelling} is a {name} of diffusers: expected one of {', '.join(CLASS_NAMES)}"
        )
    model_class: Any = getattr(diffusers, name)
    known = constructor_options(model_class)
    check_options(asked.options, known, asked.spelling)
    with explained("the model", place, advice=_ADVICE):
        whole = {**known, **config, **asked.options, "_class_name": name}
        size = _latent_size(asked, whole)
        if asked.request.latent_size is not None and name != "UNet2DConditionModel":
            whole["sample_size"] = size[0]
        called = denoiser(asked.spelling, whole, size, _scheduler_steps(place), asked.request.longest)
        if asked.request.length is not None and "encoder_hidden_states" not in called.inputs:
            raise UsageError(f"--length: {asked.spelling} takes no text states: leave it out")
        built_of = {key: value for key, value in whole.items() if key in known}
        module = _module(asked, place, lambda: model_class(**built_of))
    return LoadedModel(
        module=freeze(called.call(module)),
        source=asked.source,
        id=place.name if place.folder else asked.id,
        name=safe_name(place.name),
        inputs=called.inputs,
        output_names=("out_sample",),
        weights_kind=asked.weights_kind,
        weights_tag=place.commit if asked.weights_kind == "pretrained" else None,
        weights_sha256=sha256_of(module.state_dict()),
        largest_batch=called.largest_batch,
    )


def _check_request(asked: ResolvedRequest) -> None:
    check_image_tower(asked)
    for option, given in (
        ("--image-size", asked.request.image_size),
        ("--preprocess", asked.request.preprocess),
        ("--protect-end", asked.request.protect_end or None),
    ):
        if given is not None:
            raise UsageError(
                f"{option}: {asked.spelling} takes latents and no images: leave it out; --latent-size says how large "
                "they are"
            )
    if isinstance(asked.request.length, tuple):
        raise UsageError(f"--length: {asked.spelling} has engines of one number of text states: give one")


def _latent_size(asked: ResolvedRequest, config: Mapping[str, Any]) -> ImageSize:
    given = asked.request.latent_size or config.get("sample_size")
    if given is None:
        raise UsageError(f"{asked.spelling} does not say how large its latents are: give --latent-size N")
    height, width = as_pair(given)
    if height != width and config["_class_name"] != "UNet2DConditionModel":
        raise UsageError(f"--latent-size: {asked.spelling} takes square latents, got {height}x{width}")
    return height, width


def _scheduler_steps(place: Place) -> int:
    """Steps of the scheduler beside the model in its pipeline; where there is none, as many as all usual ones have."""
    path = None if place.folder is None else place.folder.parent / "scheduler" / "scheduler_config.json"
    if path is None or not path.is_file():
        return _DEFAULT_STEPS
    steps = read_json(path, f"{path.name} beside {place.spelling}").get("num_train_timesteps", _DEFAULT_STEPS)
    if type(steps) is not int or steps < 1:
        raise ModelUnavailableError(
            f"{path.name} beside {place.spelling}: expected num_train_timesteps >= 1, got {steps!r}"
        )
    return steps


def _module(asked: ResolvedRequest, place: Place, build: Callable[[], nn.Module]) -> nn.Module:
    if asked.weights_kind == "random":
        return build_random(lambda: building_with(build, asked.options, asked.spelling), asked.request.seed)
    path = asked.weights_path if asked.weights_kind == "file" else _weights_file(asked, place)
    return fill(build, read_checkpoint(path).state, path)


def _weights_file(asked: ResolvedRequest, place: Place) -> Path:
    for name in _WEIGHTS:
        if (path := place.file(name)) is not None:
            return path
    raise WeightsError(
        f"{asked.spelling} has no weights: expected {_WEIGHTS[0]}; fetch it, or give --weights FILE or random"
    )
