"""The preprocessing that a Hugging Face checkpoint carries in `preprocessor_config.json`.

The file is read by transformers itself, which fills in what the file leaves to the processor's class. What the
processor then does is taken down as a `Preprocess`, or refused by name.

transformers 5 has two backends that differ by a grey level here and there: Pillow's, and torchvision's for uint8
tensors. `AutoImageProcessor` takes torchvision's wherever torchvision is installed, and torchvision is one of our
own dependencies; so that is the one whose pixels ours equal. To images from a file's path transformers applies
the orientation in EXIF first, to opened images it does not; ours equals the latter.
"""

from pathlib import Path
from typing import Any

from exporter.errors import ModelUnavailableError
from exporter.models.fetch import Via, fetching
from exporter.models.hf_architectures import family_preprocess
from exporter.models.preprocess import Preprocess
from exporter.models.request import ResolvedRequest, square_side
from exporter.models.resize import Interpolation, exact_fraction

# Pillow's numbers, as the file stores them.
_INTERPOLATIONS: dict[int, Interpolation] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}

# Processors that do nothing but resize, crop, rescale and normalise. (In the first releases of transformers 5 the
# names of torchvision's end in Fast.)
PLAIN_PROCESSORS = (
    "BeitImageProcessor",
    "BitImageProcessor",
    "CLIPImageProcessor",
    "DeiTImageProcessor",
    "SiglipImageProcessor",
    "ViTImageProcessor",
)


def read_preprocess(
    asked: ResolvedRequest, model_type: str, own_size: int, where: str, revision: str | None
) -> Preprocess:
    """How the checkpoint wants its photos, at the size that was asked for.

    Without a size the checkpoint's own input size is taken: what its processor crops to, or else the size in
    its configuration. (DINOv2 is trained at 518 pixels and its processor crops to 224.)

    Args:
        asked: The request.
        model_type: Family, for checkpoints that carry no processor.
        own_size: Image size in the configuration.
        where: Folder or hub repository.
        revision: Revision of the repository.

    Raises:
        ModelUnavailableError: The processor does something that is not supported.
    """
    processor = _processor(asked, where, revision)
    if processor is None:
        return family_preprocess(model_type, square_side(asked) or own_size)
    return describe_processor(processor, square_side(asked), asked.spelling)


def describe_processor(processor: Any, image_size: int | None, spelling: str) -> Preprocess:
    """What an image processor of transformers does, as a `Preprocess`.

    Args:
        processor: With torchvision's backend.
        image_size: The side to crop instead of its own; what it resizes to is scaled alike.
        spelling: The model, as messages name it.

    Raises:
        ModelUnavailableError: It does something that is not supported.
    """
    if refusal := _refusal(processor):
        raise ModelUnavailableError(f"{spelling}: its image processor {refusal}")
    is_squash = processor.size.shortest_edge is None
    resize_to = int(processor.size.height if is_squash else processor.size.shortest_edge)
    crop_to = int(processor.crop_size.height) if processor.do_center_crop else resize_to
    size = image_size or crop_to
    normalises = processor.do_normalize
    return Preprocess(
        image_size=(size, size),
        interpolation=_INTERPOLATIONS[int(processor.resample)],
        crop_fraction=exact_fraction(size, size * resize_to // crop_to),
        mean=_per_channel(processor.image_mean if normalises else 0.0),
        std=_per_channel(processor.image_std if normalises else 1.0),
        resize_mode="squash" if is_squash else "crop",
        to_rgb="over_white" if processor.do_convert_rgb else "first",
        kernel="torch",
    )


def _processor(asked: ResolvedRequest, where: str, revision: str | None) -> Any:
    """The processor that transformers makes of the checkpoint; None if it carries none."""
    from transformers import AutoImageProcessor
    from transformers.models.auto.image_processing_auto import get_image_processor_config

    via: Via = "disk" if Path(where).is_dir() else "hub"
    pinned: dict[str, Any] = {"revision": revision} if revision else {}
    with fetching(f"the preprocessing of {asked.spelling}", via=via):
        if not get_image_processor_config(where, **pinned):
            return None
        return AutoImageProcessor.from_pretrained(  # type: ignore[no-untyped-call]
            where, **pinned, trust_remote_code=False
        )


def _refusal(processor: Any) -> str | None:
    """What it does that a `Preprocess` cannot say; None if there is nothing."""
    name = type(processor).__name__.removesuffix("Fast")
    if name not in PLAIN_PROCESSORS:
        return f"is a {name}: expected one of {', '.join(PLAIN_PROCESSORS)}"
    if not processor.do_resize or getattr(processor, "do_pad", False):
        return "does not resize, or pads: expected do_resize true and do_pad false"
    if not processor.do_rescale or abs(processor.rescale_factor - 1 / 255) > 1e-6:
        return "does not rescale pixels to [0, 1]"
    if int(processor.resample) not in _INTERPOLATIONS:
        return f"resamples by {processor.resample!r}: expected one of {', '.join(_INTERPOLATIONS.values())}"
    return _size_refusal(processor)


def _size_refusal(processor: Any) -> str | None:
    size, crop = processor.size, processor.crop_size
    if size.longest_edge or size.max_height or size.max_width:
        return f"limits the longest edge (size {size}): expected shortest_edge, or height and width"
    if size.shortest_edge is None and size.height != size.width:
        return f"resizes to {size.height}x{size.width}: expected a square"
    if processor.do_center_crop and crop.height != crop.width:
        return f"crops to {crop.height}x{crop.width}: expected a square"
    if size.shortest_edge is not None and not processor.do_center_crop:
        return "resizes the shortest edge and does not crop, so that every image gives another size"
    return None


def _per_channel(value: Any) -> tuple[float, ...]:
    return tuple(value) if isinstance(value, (list, tuple)) else (value,) * 3
