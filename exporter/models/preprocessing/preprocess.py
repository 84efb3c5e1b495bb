"""How a photo becomes a model's input: convert to its channels, resize, crop, scale to [0, 1], normalise.

Every source describes its own model with one `Preprocess`; the later rooms only read it. What it describes equals
the source library's own transform to the pixel, given the image as Pillow opens it. So an orientation in EXIF is
left alone, as timm, torchvision, open_clip and the processors of transformers leave it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from exporter.errors import BundleError, nearest, quoted
from exporter.models.preprocessing.resize import Interpolation, Kernel, ResizeMode

ChannelOrder = Literal["rgb", "gray", "rgba"]
ToRGB = Literal["first", "over_white", "last"]

PREPROCESS_FILE = "preprocess.json"
"""What it is called in a bundle, and in a saved program."""

MAX_IMAGE_SIZE = 4096
"""Beyond this the positional table alone is larger than any model that could use it."""

CHANNELS: dict[ChannelOrder, int] = {"gray": 1, "rgb": 3, "rgba": 4}

_CHOICES: dict[str, tuple[str, ...]] = {
    "interpolation": get_args(Interpolation),
    "resize_mode": get_args(ResizeMode),
    "channel_order": get_args(ChannelOrder),
    "layout": ("NCHW",),
    "to_rgb": get_args(ToRGB),
    "kernel": get_args(Kernel),
}
_LARGEST = 1e6
_LIMITS: dict[str, tuple[float, float]] = {
    "image_size": (1, MAX_IMAGE_SIZE),
    "crop_fraction": (0.01, 100.0),
    "mean": (-_LARGEST, _LARGEST),
    "std": (1 / _LARGEST, _LARGEST),
    "fill": (0, 255),
}
_WHOLE = ("image_size", "fill")

# Beyond these a number is of bytes: pixels in [0, 1] have means within it and deviations below 1.
_LARGEST_OF_PIXELS = {"mean": 3.0, "std": 10.0}

# Keys that bundles of version 0.1 do not have, with what that version did.
_ADDED_LATER: dict[str, Any] = {"to_rgb": "first", "kernel": "pil", "fill": [0, 0, 0]}


class PreprocessError(ValueError):
    """What a source, a file or a bundle says about photos is not what a `Preprocess` may say."""


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """How to make a model's input from an image.

    Attributes:
        image_size: Height and width of the input in pixels.
        interpolation: Filter of the resize.
        crop_fraction: The resize goes to `floor(image_size / crop_fraction)`, of which the centre is cropped; above
            1.0 what is missing is filled.
        mean: Subtracted per channel, on values in [0, 1]; as many as there are channels.
        std: Divided by per channel, after the mean.
        resize_mode: `crop` keeps the aspect and covers the resized size; `squash` resizes both sides to it; `pad`
            keeps the aspect and fits inside it.
        channel_order: What an image is converted to: `rgb`, `gray` (one channel) or `rgba` (four).
        layout: Always `NCHW`.
        to_rgb: When it is converted to the channels above. `first` converts before anything else, as the loaders of
            timm and torchvision do, which drops transparency unless it is a channel; `over_white` also does it
            first, and lays what is transparent over white, as processors of transformers do that convert; `last`
            resizes and crops the image in its own mode, as open_clip does (a palette image is then resized without
            a filter, a transparent one by its weight).
        kernel: Which code resizes. `pil` is Pillow's. `torch` is torchvision's for uint8 tensors, which
            transformers takes whenever torchvision is installed; it differs from Pillow's by a grey level here
            and there (and may between machines with and without AVX2), and where a crop is off centre by half a
            pixel it starts at the pixel before, Pillow's at the even one of the two.
        fill: Bytes of what is filled, one per channel.
    """

    image_size: tuple[int, int]
    interpolation: Interpolation
    crop_fraction: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize_mode: ResizeMode = "crop"
    channel_order: ChannelOrder = "rgb"
    layout: Literal["NCHW"] = "NCHW"
    to_rgb: ToRGB = "first"
    kernel: Kernel = "pil"
    fill: tuple[int, ...] = (0, 0, 0)

    def __post_init__(self) -> None:
        """Refuse what cannot be done with a photo.

        Raises:
            PreprocessError: A value is none of the choices, of the wrong kind or out of range; `mean`, `std`, `fill`
                and `channel_order` are not of the same number of channels; or two things do not go together. Its
                message starts with the field.
        """
        _check_choices(vars(self))
        for name in _LIMITS:
            _numbers(vars(self), name)
        if len(self.image_size) != 2:
            raise PreprocessError(f"image_size: expected height and width, got {quoted(self.image_size)}")
        _check_scale(vars(self))
        channels = CHANNELS[self.channel_order]
        for name in ("mean", "std", "fill"):
            if len(getattr(self, name)) != channels:
                raise PreprocessError(
                    f"{name}: expected {channels} numbers for channel_order {self.channel_order}, got "
                    f"{len(getattr(self, name))} (gray has 1, rgb has 3, rgba has 4)"
                )
        if self.channel_order == "rgba" and self.to_rgb == "over_white":
            raise PreprocessError(
                "to_rgb over_white leaves no transparency: expected channel_order rgb or gray"
            )
        if min(self.image_size) < self.crop_fraction:
            raise PreprocessError(
                f"image_size: expected sides of at least crop_fraction ({self.crop_fraction}), got {self.image_size}"
            )

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one input."""
        return len(self.mean), *self.image_size

    def to_dict(self) -> dict[str, Any]:
        """The content of a bundle's `preprocess.json`: JSON types only."""
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Preprocess":
        """Read what `to_dict` wrote into a bundle, in this version or in 0.1.

        Raises:
            BundleError: A key is missing or unknown, or a value is of the wrong kind.
        """
        try:
            return cls.parse(_ADDED_LATER | dict(data))
        except ValueError as error:
            raise BundleError(f"preprocess.json: {error}; export the bundle again") from error

    @classmethod
    def parse(cls, data: Mapping[str, object]) -> "Preprocess":
        """Read what `to_dict` gives.

        Raises:
            PreprocessError: A key is missing or unknown, or a value is of the wrong kind or out of range; its message
                starts with the key.
        """
        _check_keys(data, [field.name for field in fields(cls)])
        read: dict[str, Any] = {**data}
        for key in _LIMITS:
            numbers = tuple((int if key in _WHOLE else float)(value) for value in _numbers(data, key))
            read[key] = numbers[0] if key == "crop_fraction" else numbers
        return cls(**read)


def channel_order(channels: int) -> ChannelOrder | None:
    """What an image is converted to for a number of channels; None where no photo has that number."""
    return next((order for order, count in CHANNELS.items() if count == channels), None)


def _check_keys(data: Mapping[str, object], known: Sequence[str]) -> None:
    missing, unknown = [key for key in known if key not in data], [key for key in data if key not in known]
    if unknown:
        raise PreprocessError(
            f"unknown key {quoted(unknown[0])}: known are {', '.join(known)}.{nearest(unknown[0], known)}"
        )
    if missing:
        raise PreprocessError(f"missing keys: {', '.join(missing)}")


def _check_choices(data: Mapping[str, object]) -> None:
    for key, allowed in _CHOICES.items():
        if data[key] not in allowed:
            raise PreprocessError(f"{key}: expected one of {', '.join(allowed)}, got {quoted(data[key])}")
    if data["to_rgb"] == "last" and (data["kernel"] == "torch" or data["resize_mode"] == "pad"):
        raise PreprocessError("to_rgb: last goes with kernel pil and without padding")


def _check_scale(data: Mapping[str, Any]) -> None:
    """Refuse means and deviations of bytes, which would make every image one colour."""
    for key, most in _LARGEST_OF_PIXELS.items():
        for value in data[key]:
            if abs(value) > most:
                raise PreprocessError(
                    f"{key}: {value:g} looks like 0..255: expected values for pixels in [0, 1]; divide by 255"
                )


def _numbers(data: Mapping[str, object], key: str) -> Sequence[float]:
    """The numbers of a list, or the one number of a fraction, all within the limits of their key."""
    (low, high), is_whole = _LIMITS[key], key in _WHOLE
    values = [data[key]] if key == "crop_fraction" else data[key]
    kind = "whole numbers" if is_whole else "numbers"
    if not isinstance(values, list | tuple):
        raise PreprocessError(f"{key}: expected a list of {kind}, got {quoted(values)}")
    for value in values:
        fits = type(value) is int or (type(value) is float and not (is_whole and value % 1))
        if not fits or not low <= value <= high:
            raise PreprocessError(f"{key}: expected {kind} from {low:g} to {high:g}, got {quoted(value)}")
    return values
