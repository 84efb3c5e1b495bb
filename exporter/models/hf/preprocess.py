"""The preprocessing that a Hugging Face checkpoint carries in `preprocessor_config.json`.

The file is read by transformers itself, which fills in what the file leaves to the processor's class. What the
processor then does is taken down as a `Preprocess`, or refused by name.

transformers 5 has two backends that differ by a grey level here and there: Pillow's, and torchvision's for uint8
tensors. `AutoImageProcessor` takes torchvision's wherever torchvision is installed, and torchvision is one of our
own dependencies; so that is the one whose pixels ours equal. To images from a file's path transformers applies
the orientation in EXIF first, to opened images it does not; ours equals the latter.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from exporter.errors import ModelUnavailableError, quoted
from exporter.models.hf.architectures import family_of, family_preprocess
from exporter.models.hf.checkpoint import read_place_json
from exporter.models.hf.errors import explained, reading
from exporter.models.hf.place import Place
from exporter.models.preprocessing.file import GUESSED
from exporter.models.preprocessing.preprocess import MAX_IMAGE_SIZE, Preprocess, ToRGB, channel_order
from exporter.models.preprocessing.resize import Interpolation, exact_fraction
from exporter.models.request import ImageSize, ResolvedRequest, size_text

SAY_IT = "say it yourself with --preprocess FILE.json"

# Pillow's numbers, as the file stores them.
_INTERPOLATIONS: dict[int, Interpolation] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}

# What a processor's class has to leave as the library's own, if it is to do nothing but resize, crop, rescale and
# normalise.
_STEPS = ("process_image", "convert_to_rgb", "resize", "center_crop", "rescale_and_normalize", "_preprocess")

# Classes that have steps of their own, which do the same to images (BEiT's are for maps of segments).
_SAME_STEPS = ("BeitImageProcessor",)

# Classes that scale to [0, 1] before they resize: the pixels differ from ours by a rounding, not in what is seen.
_RESIZES_FLOATS = ("DINOv3ViTImageProcessor",)

_LARGEST = 1e6
"""Of a mean or deviation of values in [0, 1]; beyond it, and not a number, is a mistake."""

_FILES = ("processor_config.json", "preprocessor_config.json")


@dataclass(frozen=True, kw_only=True)
class Look:
    """Whose preprocessing is asked for.

    Attributes:
        asked: The request.
        place: The checkpoint.
        model_types: Of the tower and of the checkpoint that it is in, for those that carry no processor: the family
            whose processor is taken is the first that has one.
        own_size: Image size in the configuration.
        size: Height and width wanted; None is what the checkpoint wants.
        channels: Of an image.
        accepts: Whether transformers runs the model as it is on images of a height and width.
    """

    asked: ResolvedRequest
    place: Place
    model_types: tuple[str, ...]
    own_size: ImageSize
    size: ImageSize | None
    channels: int
    accepts: Callable[[ImageSize], bool]


def read_preprocess(look: Look) -> tuple[Preprocess | None, tuple[str, ...]]:
    """How the checkpoint wants its photos, at the size that was asked for.

    Without a size the checkpoint's own input size is taken: what its processor crops to, or else the size in
    its configuration. (DINOv2 is trained at 518 pixels and its processor crops to 224.) Where the processor's file
    leaves the size to the processor's class, the configuration's is taken unless transformers resamples by itself.

    Returns:
        None where the request brings its own, or where no photo has the model's channels. And notes on what was
        guessed.

    Raises:
        ModelUnavailableError: The processor does something that is not supported.
    """
    if look.asked.request.preprocess is not None:
        return None, ()
    if channel_order(look.channels) is None:
        return None, (f"no preprocessing: no photo has {look.channels} channels; {SAY_IT}",)
    processor, content = _processor(look)
    if processor is None:
        return _guess(look)
    with explained("the preprocessing", look.place, advice=f"correct preprocessor_config.json, or {SAY_IT}"):
        found = describe_processor(processor, look.size, look.asked.spelling, look.channels)
        size_key = "crop_size" if processor.do_center_crop else "size"
        is_size_left = look.size is None and content.get(size_key) is None
        if is_size_left and found.image_size != look.own_size and not look.accepts(found.image_size):
            found = describe_processor(processor, look.own_size, look.asked.spelling, look.channels)
    notes = [f"{GUESSED} in part: {_untyped(processor)}"] if not _is_typed(content) else []
    if is_size_left:
        whose = "the model's" if found.image_size == look.own_size else f"that of {_class_of(processor)}"
        notes.append(
            f"{GUESSED} in part: its file states no {size_key}, so {size_text(found.image_size)} is taken, {whose}"
        )
    if _class_of(processor) in _RESIZES_FLOATS:
        notes.append(
            "its processor resizes numbers in [0, 1], here bytes are resized: pixels differ by a rounding"
        )
    if look.channels not in (3, len(_listed(processor.image_mean))):
        notes.append(f"mean and std are of one channel and are taken for all {look.channels}")
    return found, tuple(notes)


def describe_processor(
    processor: Any, image_size: ImageSize | None, spelling: str, channels: int = 3
) -> Preprocess:
    """What an image processor of transformers does, as a `Preprocess`.

    Args:
        processor: With torchvision's backend.
        image_size: Height and width to crop instead of its own; what it resizes to is scaled alike.
        spelling: The model, as messages name it.
        channels: Of the model's images.

    Raises:
        ModelUnavailableError: It does something that is not supported.
    """
    refusal = _refusal(processor) or _size_refusal(processor) or _channel_refusal(processor, channels)
    if refusal:
        raise ModelUnavailableError(f"{spelling}: its image processor {refusal}; {SAY_IT}")
    is_squash = processor.size.shortest_edge is None
    edge = processor.size.shortest_edge
    resize_to = (processor.size.height, processor.size.width) if is_squash else (edge, edge)
    crop_to = _sides(processor.crop_size) if processor.do_center_crop else resize_to
    size = image_size or (int(crop_to[0]), int(crop_to[1]))
    normalises = processor.do_normalize
    order = channel_order(channels)
    assert order is not None
    return Preprocess(
        image_size=size,
        interpolation=_INTERPOLATIONS[int(processor.resample)],
        crop_fraction=exact_fraction(size[0], size[0] * int(resize_to[0]) // int(crop_to[0])),
        mean=_per_channel(processor.image_mean if normalises else 0.0, channels),
        std=_per_channel(processor.image_std if normalises else 1.0, channels),
        resize_mode="squash" if is_squash else "crop",
        channel_order=order,
        to_rgb=_to_rgb(converts=bool(processor.do_convert_rgb), channels=channels),
        kernel="torch",
        fill=(0,) * channels,
    )


def _guess(look: Look) -> tuple[Preprocess, tuple[str, ...]]:
    size = look.size or look.own_size
    for model_type in look.model_types:
        found = family_preprocess(model_type, size) or _default_of_class(look, model_type, size)
        if found is not None:
            break
    else:
        raise ModelUnavailableError(
            f"{look.asked.spelling} carries no preprocessor_config.json, and transformers has no processor for "
            f"{quoted(look.model_types[-1])}: add the file, or {SAY_IT}"
        )
    if look.channels != 3:
        order = channel_order(look.channels)
        assert order is not None
        found = replace(
            found,
            mean=_spread(found.mean, look.channels),
            std=_spread(found.std, look.channels),
            fill=(0,) * look.channels,
            channel_order=order,
            to_rgb=_to_rgb(converts=found.to_rgb == "over_white", channels=look.channels),
        )
    return found, (
        f"{GUESSED}: there is no preprocessor_config.json ({family_of(model_type)} default: "
        f"{size_text(found.image_size)}, {found.resize_mode} {found.interpolation}, mean {_numbers(found.mean)}, "
        f"std {_numbers(found.std)}); give --preprocess FILE.json to say it",
    )


def _default_of_class(look: Look, model_type: str, size: ImageSize) -> Preprocess | None:
    """What the processor that transformers has for a family does by itself."""
    import transformers
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING

    families = (model_type, family_of(model_type))
    configs = [transformers.CONFIG_MAPPING[name] for name in families if name in transformers.CONFIG_MAPPING]
    classes: Any = next(
        (IMAGE_PROCESSOR_MAPPING[each] for each in configs if each in IMAGE_PROCESSOR_MAPPING), None
    )
    if not isinstance(classes, dict) or classes.get("torchvision") is None:
        return None
    with explained("the default processor", look.place, advice=SAY_IT):
        processor = classes["torchvision"]()
    return describe_processor(processor, size, look.asked.spelling)


def _processor(look: Look) -> tuple[Any, Mapping[str, Any]]:
    from transformers import AutoImageProcessor

    place = look.place
    with reading("the preprocessing", place, advice=f"correct preprocessor_config.json, or {SAY_IT}"):
        content = _content(place)
        if not content:
            return None, {}
        if content.get("auto_map") and "image_processor_type" not in content:
            raise ModelUnavailableError(
                f"the image processor of {place.spelling} is code of the repository (auto_map), which is not run; "
                f"{SAY_IT}"
            )
        processor = AutoImageProcessor.from_pretrained(place.where, **place.pinned, trust_remote_code=False)
    return processor, content


def _is_typed(content: Mapping[str, Any]) -> bool:
    return bool(content.get("image_processor_type") or content.get("feature_extractor_type"))


def _untyped(processor: Any) -> str:
    return f"its file names no image_processor_type, so that of the family is taken ({_class_of(processor)})"


def _content(place: Place) -> dict[str, Any]:
    """What the checkpoint's files say about images, as transformers looks for it: nested first."""
    nested, own = (place.file(name) for name in _FILES)
    if nested is not None and isinstance(
        inside := read_place_json(nested, place).get("image_processor"), dict
    ):
        return inside
    return read_place_json(own, place) if own is not None else {}


def _class_of(processor: Any) -> str:
    # In the first releases of transformers 5 the names of torchvision's end in Fast.
    return type(processor).__name__.removesuffix("Fast")


def _refusal(processor: Any) -> str | None:
    """What it does that a `Preprocess` cannot say; None if there is nothing."""
    name = _class_of(processor)
    own_steps = [step for step in _STEPS if _is_own(processor, step)]
    if own_steps and name not in (*_SAME_STEPS, *_RESIZES_FLOATS):
        return f"is a {name}, which does more than to resize, crop, rescale and normalise ({own_steps[0]})"
    if not processor.do_resize or getattr(processor, "do_pad", False):
        return "does not resize, or pads: expected do_resize true and do_pad false"
    if not processor.do_rescale or abs(processor.rescale_factor - 1 / 255) > 1e-6:
        return "does not rescale pixels to [0, 1]"
    if int(processor.resample) not in _INTERPOLATIONS:
        return f"resamples by {processor.resample!r}: expected one of {', '.join(_INTERPOLATIONS.values())}"
    return None


def _is_own(processor: Any, step: str) -> bool:
    """Whether a class of one family has a step of its own, or lacks the library's."""
    method = getattr(type(processor), step, None)
    return method is None or method.__module__.startswith("transformers.models.")


def _size_refusal(processor: Any) -> str | None:
    size, crop = processor.size, processor.crop_size
    sides = [side for each in (size, crop) if each for side in (each.height, each.width, each.shortest_edge)]
    if not all(side is None or (type(side) is int and 1 <= side <= MAX_IMAGE_SIZE) for side in sides):
        return f"resizes to {quoted(sides)}: expected sides between 1 and {MAX_IMAGE_SIZE}"
    if size is None or size.longest_edge or size.max_height or size.max_width:
        return f"limits the longest edge (size {size}): expected shortest_edge, or height and width"
    if size.shortest_edge is not None and not processor.do_center_crop:
        return (
            f"resizes the shortest edge to {size.shortest_edge} and does not crop, so that every image gives "
            "another size: set do_center_crop and crop_size there"
        )
    if not processor.do_center_crop:
        return None
    if size.shortest_edge is not None:
        if crop.height != crop.width:
            return f"crops {crop.height}x{crop.width} of a resized shortest edge: expected a square"
        return None
    if size.height * crop.width != size.width * crop.height:
        return (
            f"resizes to {size.height}x{size.width} and crops {crop.height}x{crop.width}: expected the same "
            "proportion of both sides"
        )
    return None


def _channel_refusal(processor: Any, channels: int) -> str | None:
    """Means or deviations that are not of the model's channels, and cannot be spread over them."""
    if not processor.do_normalize:
        return None
    for name in ("image_mean", "image_std"):
        values = _listed(getattr(processor, name))
        if not all(isinstance(value, (int, float)) and abs(value) < _LARGEST for value in values):
            return f"has {quoted(values)} as {name}: expected finite numbers"
        if name == "image_std" and 0 in values:
            return "divides by zero: expected positive numbers in image_std"
        if len(values) != channels and len(set(values)) != 1:
            return f"has {len(values)} numbers in {name}, and the model takes {channels} channels"
    return None


def _sides(size: Any) -> tuple[int, int]:
    return int(size.height), int(size.width)


def _to_rgb(*, converts: bool, channels: int) -> ToRGB:
    """Over white, as the processors of transformers convert; a transparent channel stays."""
    return "over_white" if converts and channels == 3 else "first"


def _listed(value: Any) -> Sequence[float]:
    return value if isinstance(value, (list, tuple)) else (value,)


def _per_channel(value: Any, channels: int) -> tuple[float, ...]:
    values = _listed(value)
    return tuple(values) if len(values) == channels else (values[0],) * channels


def _spread(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """Numbers of three channels for another count: their mean, for each."""
    mean = round(sum(values) / len(values), 6)
    return (mean,) * channels


def _numbers(values: tuple[float, ...]) -> str:
    return "/".join(f"{value:g}" for value in values)
