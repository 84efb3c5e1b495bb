"""`--preprocess FILE.json`: how photos become a model's input, said by the user instead of by the source.

The file has the keys of a bundle's `preprocess.json`. Its image size is the one that is loaded, unless
`--image-size` says the same.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from exporter.errors import UsageError, quoted
from exporter.models.loaded import LoadedModel
from exporter.models.preprocessing.preprocess import Preprocess, channel_order
from exporter.models.request import ModelRequest, ResolvedRequest, size_text

REQUIRED_KEYS = ("image_size", "mean", "std")
DEFAULTS: Mapping[str, Any] = {
    "interpolation": "bicubic",
    "crop_fraction": 1.0,
    "resize_mode": "crop",
    "layout": "NCHW",
    "to_rgb": "first",
    "kernel": "pil",
}
"""What a file need not say: the shorter side is resized bicubically to the image size, of which the centre is cropped.

The channels follow from how many numbers `mean` has.
"""

GUESSED = "preprocessing guessed"
"""How a note starts that says what a source assumed about photos; it is left out where the user says it."""

SAY_IT = "say it with --preprocess FILE.json"
"""How to fix it where a source says what cannot be done with photos."""

GIVEN = "preprocessing as given with --preprocess, not as the source says"

LARGEST_FILE_BYTES = 1_000_000


def with_preprocess_file(asked: ResolvedRequest) -> ResolvedRequest:
    """The request with its preprocessing file read, and with the image size that the file is for.

    Raises:
        UsageError: There is no such file, it does not say how photos become an input, or for another image size
            than was asked for.
    """
    if asked.request.preprocess is None:
        return asked
    path = Path(asked.request.preprocess).expanduser()
    where = f'--preprocess "{quoted(path)}"'
    preprocess = _read(path, where)
    if asked.image_size not in (None, preprocess.image_size):
        raise UsageError(
            f"{where} is for images of {size_text(preprocess.image_size)} pixels, got --image-size "
            f"{size_text(asked.image_size)}; leave --image-size out, or change image_size in the file"
        )
    request = replace(asked.request, image_size=preprocess.image_size)
    return replace(asked, request=request, preprocess=preprocess)


@contextmanager
def naming_the_file(asked: ResolvedRequest, request: ModelRequest) -> Iterator[None]:
    """Say of a refused image size that it is the file's, where the user gave no other.

    Raises:
        UsageError: Whatever is refused within the block.
    """
    try:
        yield
    except UsageError as error:
        if asked.preprocess is None or request.image_size is not None or "--image-size" not in str(error):
            raise
        raise UsageError(f"{error} (it is the image_size of --preprocess)") from error


def take_preprocess(loaded: LoadedModel, preprocess: Preprocess | None) -> LoadedModel:
    """The model with the preprocessing that the user gave, if any, and without notes about a guess.

    Raises:
        UsageError: It makes another input than the model takes.
    """
    if preprocess is None:
        return loaded
    if loaded.channels_of_no_photo is not None:
        raise UsageError(f"--preprocess: {loaded.name} {loaded.why_no_photos}; leave --preprocess out")
    if loaded.example_input.shape != preprocess.input_shape:
        raise UsageError(
            f"--preprocess makes inputs of {_shape_text(preprocess.input_shape)} (channels, height, width): expected "
            f"{_shape_text(loaded.example_input.shape)}, which {loaded.name} takes; change image_size, mean and std"
        )
    notes = (note for note in loaded.notes if not note.startswith(GUESSED))
    return replace(loaded, preprocess=preprocess, notes=(*notes, GIVEN))


def parse_document(text: str | bytes) -> Preprocess:
    """Read the JSON text of a preprocessing that names what it wants, with `DEFAULTS` for the rest.

    Raises:
        ValueError: Not JSON, not an object, or with wrong keys or values.
    """
    try:
        data = json.loads(text)
    except RecursionError:
        raise ValueError("not JSON that can be read: nested too deep") from None
    except ValueError as error:
        raise ValueError(f"not JSON ({quoted(error)})") from None
    if not isinstance(data, dict):
        raise ValueError(f"expected an object with the keys {', '.join(REQUIRED_KEYS)}, got {quoted(data)}")
    mean, size = data.get("mean"), data.get("image_size")
    channels = len(mean) if isinstance(mean, list) else 0
    order = channel_order(channels) or "rgb"
    by_channel = {"channel_order": order, "fill": [0] * channels}
    whole_size = {"image_size": [size, size]} if type(size) is int else {}
    return Preprocess.parse({**DEFAULTS, **by_channel, **data, **whole_size})


def _read(path: Path, where: str) -> Preprocess:
    way_out = "expected a JSON file with the keys of a bundle's preprocess.json"
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        raise UsageError(f"{where} {kind}: {way_out}")
    try:
        if path.stat().st_size > LARGEST_FILE_BYTES:
            raise ValueError(f"larger than {LARGEST_FILE_BYTES} bytes")
        return parse_document(path.read_bytes())
    except (OSError, ValueError) as error:
        text = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"{where}: {text}; {way_out}") from error


def _shape_text(shape: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in shape)
