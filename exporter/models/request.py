"""What a caller asks of this package, and how the name of a model is read.

In: the user's words (`vit_b16`, `timm:deit3_small_patch16_224`, `model.pt2`); out, a
`ResolvedRequest` that says which source answers and under which id. No library of models is imported here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from exporter.errors import ModelUnavailableError, UsageError, nearest, quoted
from exporter.models.alias_table import ALIASES, Alias
from exporter.models.preprocessing.preprocess import MAX_IMAGE_SIZE, Preprocess
from exporter.recipe_key import Key, Range

Tower = Literal["image", "text"]
Outputs = Literal["own", "dense", "reduced"]
WeightsKind = Literal["pretrained", "random", "file", "embedded", "program"]
ImageSize = tuple[int, int]
"""Height and width in pixels."""
Lengths = tuple[int, ...]
"""Numbers of tokens, ascending."""
LEAST_LENGTH, MOST_LENGTH = 3, 65536
OptionValue = bool | int | float | str | None | tuple[int | float, ...]
"""What a free parameter of an architecture may be set to."""

SOURCES = ("timm", "torchvision", "hf", "open_clip")


@dataclass(frozen=True, kw_only=True)
class ModelRequest:
    """What to load.

    Attributes:
        model: alias (vit_b16), source:id (timm, torchvision, hf, open_clip), or .pt2 file.
        options: free parameters of the architecture by the source library's own names, such as num_classes=10; what is
            not given is taken from the weights.
        preprocess: JSON file with the keys of a bundle's preprocess.json, to use instead of what the source says. Its
            image size is the one that is loaded.
        weights: where the weights come from: pretrained, random, or a file (.safetensors, .pth, .pt, .bin, .ckpt).
        seed: seed of random weights.
        tower: which tower of a CLIP; the text tower is exported as it is, with both into the bundle's folder `text`.
        outputs: dense for one entry per patch whatever is merged: a backbone gives its normalised tokens, and a program
            or a model with a head for maps gets every token back where it needs them all; reduced for the tokens that
            are left, which another model reads; own for the model's outputs as they are.
        latent_size: side of the square latents of a diffusion model, or height and width; by default the model's own.
        image_size: side of the square input in pixels, or height and width: [96, 160] in a recipe, 96x160 as an option;
            by default the model's own.
        length: tokens of a text that a text encoder takes, shorter ones are padded; several, such as 32,64,128, give
            engines for each in one bundle, and a text runs on the shortest that takes it; by default 128, or as many as
            the model has positions. Of a diffusion model, how many text states it takes.
        protect_end: keep the last token of a text, [SEP] or </s>, out of all merges, as the first one always is: the
            encoder takes it as the second one, with its own position.
    """

    model: Annotated[str, Key(path="model.name")]
    options: Annotated[
        Mapping[str, OptionValue],
        Key(path="model.options", option="--model-option", metavar="NAME=VALUE", example="num_classes=10"),
    ] = field(default_factory=dict)
    preprocess: Annotated[str | None, Key(path="model.preprocess", option="--preprocess")] = None
    weights: Annotated[str, Key(path="weights", option="--weights")] = "pretrained"
    seed: Annotated[int, Range(least=0, most=2**63 - 1), Key(path="seed", option="--seed")] = 0
    tower: Annotated[Tower, Key(path="tower", option="--tower", values=Literal["image", "text", "both"])] = (
        "image"
    )
    outputs: Annotated[Outputs, Key(path="outputs", option="--outputs")] = "own"
    latent_size: Annotated[
        int | ImageSize | None, Key(path="latent_size", option="--latent-size", example="64x96")
    ] = None
    image_size: Annotated[
        int | ImageSize | None, Key(path="image_size", option="--image-size", example="96x160")
    ] = None
    length: Annotated[int | Lengths | None, Key(path="length", option="--length", example="32,64,128")] = None
    protect_end: Annotated[bool, Key(path="protect_end", option="--protect-end")] = False

    @property
    def longest(self) -> int | None:
        """The length of a text, or the largest of several."""
        return self.length[-1] if isinstance(self.length, tuple) else self.length


@dataclass(frozen=True, kw_only=True)
class ResolvedRequest:
    """A request whose model name has been read: `source` answers it, under `id`.

    `preprocess` is what the user's file says about photos; where it is given, a source need not know.
    """

    request: ModelRequest
    source: str
    id: str
    alias: Alias | None = None
    preprocess: Preprocess | None = None

    @property
    def weights_kind(self) -> WeightsKind:
        """Where the parameters come from, before a source refines it."""
        if self.request.weights == "pretrained":
            return "pretrained"
        return "random" if self.request.weights == "random" else "file"

    @property
    def weights_path(self) -> Path:
        """The state dict to read; only meaningful for `file` weights."""
        return Path(self.request.weights).expanduser()

    @property
    def image_size(self) -> ImageSize | None:
        """Height and width that were asked for; None is the model's own."""
        size = self.request.image_size
        return None if size is None else as_pair(size)

    @property
    def options(self) -> dict[str, OptionValue]:
        """Free parameters that the user gave a value."""
        return {name: value for name, value in self.request.options.items() if value is not None}

    @property
    def spelling(self) -> str:
        """The model as messages name it."""
        return self.alias.name if self.alias else f"{self.source}:{self.id}"


def resolve(request: ModelRequest) -> ResolvedRequest:
    """Read the model's name.

    Args:
        request: What was asked for.

    Returns:
        The same request with its source and id.

    Raises:
        ModelUnavailableError: No alias, source or file of that name.
        UsageError: The image size or the tower makes no sense for any model.
    """
    _check_values(request)
    model = request.model.strip()
    source, colon, name = model.partition(":")
    if colon and source in SOURCES:
        if not name:
            raise ModelUnavailableError(f'"{model}" names no model: expected {source}:NAME')
        return ResolvedRequest(request=request, source=source, id=name)
    if model in ALIASES:
        alias = ALIASES[model]
        return ResolvedRequest(request=request, source=alias.source, id=alias.id, alias=alias)
    if model.endswith(".pt2"):
        return ResolvedRequest(request=request, source="pt2", id=model)
    raise ModelUnavailableError(_unknown_model(model, source if colon else None))


def safe_name(text: str) -> str:
    """A file-system safe name: letters, digits, `.`, `_` and `-`; never empty, never hidden."""
    safe = "".join(
        letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "-" for letter in text
    )
    return safe.strip(".-") or "model"


def as_pair(size: Any) -> ImageSize:
    """Height and width of a size that is given as one number or as two."""
    if isinstance(size, int):
        return size, size
    height, width = size
    return int(height), int(width)


def size_text(size: int | ImageSize) -> str:
    """An image size as the command line takes it: `224`, or `96x160` (height, width)."""
    height, width = as_pair(size)
    return str(height) if height == width else f"{height}x{width}"


def check_multiple(size: int | ImageSize, patch: int | ImageSize, spelling: str) -> None:
    """Refuse an image size that the patches do not tile.

    Args:
        size: Height and width in pixels, or the side of a square.
        patch: Likewise, of one patch.
        spelling: The model, as messages name it.

    Raises:
        UsageError: A side is not a multiple of the patch's.
    """
    for side, multiple in zip(as_pair(size), as_pair(patch), strict=True):
        if side % multiple:
            below = side - side % multiple
            fitting = f"{below} or {below + multiple}" if below else str(multiple)
            raise UsageError(
                f"--image-size {size_text(size)} does not fit {spelling}: expected a multiple of its patch size "
                f"{multiple}, got {side}; use {fitting}"
            )


def square_side(asked: ResolvedRequest) -> int | None:
    """The side of the square that was asked for; None is the model's own.

    Raises:
        UsageError: Height and width differ.
    """
    if asked.image_size is None:
        return None
    height, width = asked.image_size
    if height != width:
        raise UsageError(
            f"{asked.spelling} takes square images only: expected one --image-size, got {height}x{width}"
        )
    return height


def check_image_tower(asked: ResolvedRequest) -> None:
    """Refuse `--tower text` of a model that only takes images.

    Raises:
        UsageError: The text tower was asked for.
    """
    if asked.request.tower == "text":
        raise UsageError(
            f"{asked.spelling} has no text tower: expected a CLIP or SigLIP model for --tower text"
        )


def check_no_length(asked: ResolvedRequest) -> None:
    """Refuse what only text encoders have of a model that takes images, or of a text tower, whose length is its own.

    Raises:
        UsageError: It was asked for.
    """
    request = asked.request
    for option, given in (("--length", request.length is not None), ("--protect-end", request.protect_end)):
        if given:
            raise UsageError(
                f"{option} is for text encoders, such as BERT (hf:FOLDER), and {asked.spelling} is none: leave it out"
            )


def check_no_options(asked: ResolvedRequest) -> None:
    """Refuse `--model-option` of a model whose architecture is fixed.

    Raises:
        UsageError: An option was given.
    """
    if asked.request.options:
        raise UsageError(
            f"{asked.spelling} has no free parameters: leave --model-option out, got "
            f"{quoted(', '.join(asked.request.options))}"
        )


def _check_values(request: ModelRequest) -> None:
    if request.tower not in ("image", "text"):
        raise UsageError(f'tower must be "image" or "text", got "{request.tower}"')
    size = request.image_size
    if size is not None and not all(1 <= side <= MAX_IMAGE_SIZE for side in as_pair(size)):
        raise UsageError(f"--image-size must be between 1 and {MAX_IMAGE_SIZE}, got {size_text(size)}")
    latents = request.latent_size
    if latents is not None and not all(1 <= side <= MAX_IMAGE_SIZE for side in as_pair(latents)):
        raise UsageError(f"--latent-size must be between 1 and {MAX_IMAGE_SIZE}, got {size_text(latents)}")
    if size is not None and request.tower == "text":
        raise UsageError(
            "--image-size says nothing about a text tower: leave one of --image-size and --tower out"
        )
    if request.outputs != "own" and request.tower == "text":
        raise UsageError(
            f"--outputs {request.outputs} says nothing about a text tower: leave one of --outputs and --tower out"
        )
    if request.preprocess is not None and request.tower == "text":
        raise UsageError(
            "--preprocess says nothing about a text tower: leave one of --preprocess and --tower out"
        )


def _unknown_model(model: str, prefix: str | None) -> str:
    if prefix is not None:
        sources = ", ".join(f"{source}:" for source in SOURCES)
        hint = nearest(prefix, SOURCES)
        return f'unknown model source "{prefix}:" in "{model}": expected one of {sources}.{hint}'
    if Path(model).expanduser().is_dir():
        return (
            f'"{model}" is a folder: a checkpoint of transformers is written hf:{model}, of timm timm:{model}'
        )
    hint = nearest(model, ALIASES) or " Run `python -m exporter models` for the list."
    return f'unknown model "{model}": expected an alias, SOURCE:NAME or a path to a .pt2.{hint}'
