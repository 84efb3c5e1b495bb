"""Load the model that was asked for; the only module that maps a source to its loader.

In: a `ModelRequest`; out: a `LoadedModel` for `capture`. A source's library is
imported only when that source is asked for.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import MappingProxyType

from exporter.errors import (
    InternalError,
    ModelUnavailableError,
    UsageError,
    library_failures,
    one_line,
    quoted,
)
from exporter.models.alias_table import ALIASES, Alias
from exporter.models.checkpoint.claim import Claims, claiming
from exporter.models.library_notes import listening
from exporter.models.loaded import LoadedModel
from exporter.models.preprocessing.file import SAY_IT, naming_the_file, take_preprocess, with_preprocess_file
from exporter.models.preprocessing.preprocess import PreprocessError
from exporter.models.quiet import quiet
from exporter.models.request import ModelRequest, ResolvedRequest, check_no_length, resolve

_SEE_MORE = "check the model and its files; --debug shows where its library stopped"


def load(request: ModelRequest, claims: Claims | None = None) -> LoadedModel:
    """Load a model with its weights.

    Args:
        request: Which model, weights, image size and tower.
        claims: Names in a file of weights that are not the model's, but a method's.

    Returns:
        The model in eval mode, in fp32, on the CPU.

    Raises:
        UsageError: The image size, tower, options or preprocessing do not fit the model.
        ModelUnavailableError: The model is unknown, its library is not installed, or it cannot be fetched.
        WeightsError: The weights file is missing, damaged, or of another architecture, or the weights are not finite.
        UnsupportedGraphError: A saved program has dynamic tokens, or holds what may not be loaded safely.
    """
    asked = with_preprocess_file(resolve(request))
    if asked.source != "hf":
        check_no_length(asked)
    load_from = _loader(asked.source)
    with (
        library_failures(ModelUnavailableError, f"{quoted(request.model)}: cannot be loaded", _SEE_MORE),
        listening(asked.source) as heard,
        quiet(),
        claiming(claims) as learned,
        naming_the_file(asked, request),
        _refusing_preprocessing(request),
    ):
        loaded = load_from(asked)
    if request.latent_size is not None and loaded.steps is None:
        raise UsageError(f"--latent-size: {quoted(request.model)} takes no latents; leave it out")
    _check_finite(loaded)
    notes = dict.fromkeys(map(one_line, (*loaded.notes, *heard.notes, *_about_channels(loaded))))
    alias = asked.alias.name if asked.alias else None
    loaded = replace(loaded, alias=alias, notes=tuple(notes), learned=learned)
    loaded = take_preprocess(loaded, asked.preprocess)
    return _with_dense_outputs(loaded, asked)


def _with_dense_outputs(loaded: LoadedModel, asked: ResolvedRequest) -> LoadedModel:
    from exporter.models.tokens import with_dense_outputs  # it needs torch, which `models` does without

    return with_dense_outputs(loaded, asked)


@contextmanager
def _refusing_preprocessing(request: ModelRequest) -> Iterator[None]:
    """Refuse preprocessing of a source that a `Preprocess` cannot express; the user may give another."""
    try:
        yield
    except PreprocessError as error:
        raise ModelUnavailableError(
            f"{quoted(request.model)}: its preprocessing: {error}; {SAY_IT}"
        ) from error


def _check_finite(loaded: LoadedModel) -> None:
    from exporter.models.weights import check_finite  # it needs torch, which `models` does without

    check_finite(loaded.module)


def aliases() -> Mapping[str, Alias]:
    """Every alias by name, in the order in which they are shown."""
    return MappingProxyType(ALIASES)


def without_download(request: ModelRequest) -> ModelRequest:
    """The same model with weights that cost no download: enough to look at its structure."""
    brings_its_own = resolve(request).source in ("exporter", "pt2")
    if brings_its_own or request.weights != "pretrained":
        return request
    return replace(request, weights="random")


def _about_channels(loaded: LoadedModel) -> tuple[str, ...]:
    if loaded.channels_of_no_photo is None:
        return ()
    return (f"the model {loaded.why_no_photos}; parity is shown tensors instead",)


def _loader(source: str) -> Callable[[ResolvedRequest], LoadedModel]:
    match source:
        case "timm":
            from exporter.models.timm.source import load_timm

            return load_timm
        case "torchvision":
            from exporter.models.torchvision.source import load_torchvision

            return load_torchvision
        case "hf":
            from exporter.models.hf.source import load_hf

            return load_hf
        case "open_clip":
            from exporter.models.open_clip.source import load_open_clip

            return load_open_clip
        case "pt2":
            from exporter.models.pt2.source import load_pt2_program

            return load_pt2_program
        case "exporter":
            from exporter.models.shipped.source import load_embedded

            return load_embedded
        case _:
            raise InternalError(f'no source answers "{source}"')
