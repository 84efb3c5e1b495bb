"""The geometry of preprocessing, for images and crops of any aspect."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from exporter.models.preprocessing.resize import ResizeMode, crop_centre, resize, resized_size

Size = tuple[int, int]

FRACTIONS = st.floats(0.25, 1.5)
CROPS = st.tuples(st.integers(2, 64), st.integers(2, 64))
ANY_IMAGE = st.tuples(st.integers(1, 100_000), st.integers(1, 100_000))
SMALL_IMAGE = st.tuples(st.integers(1, 200), st.integers(1, 200))


@given(size=ANY_IMAGE, crop=CROPS, fraction=FRACTIONS)
def test_a_resized_image_covers_what_is_cropped_of_it(size: Size, crop: Size, fraction: float) -> None:
    height, width = (math.floor(side / fraction) for side in crop)
    to_width, to_height = resized_size(size, crop, fraction, mode="crop")
    assert to_width == width or to_height == height
    assert to_width >= width
    assert to_height >= height


@given(size=ANY_IMAGE, crop=CROPS, fraction=FRACTIONS)
def test_a_padded_image_fits_inside(size: Size, crop: Size, fraction: float) -> None:
    height, width = (math.floor(side / fraction) for side in crop)
    to_width, to_height = resized_size(size, crop, fraction, mode="pad")
    assert to_width == width or to_height == height
    assert to_width <= width
    assert to_height <= height


@pytest.mark.parametrize("mode", ["crop", "squash", "pad"])
@pytest.mark.parametrize("down", [False, True])
@given(size=SMALL_IMAGE, crop=CROPS, fraction=FRACTIONS)
def test_the_result_has_exactly_the_models_size(
    mode: ResizeMode, down: bool, size: Size, crop: Size, fraction: float
) -> None:
    to = resized_size(size, crop, fraction, mode=mode)
    image = resize(
        Image.new("L", size), to if mode != "pad" else (max(to[0], 1), max(to[1], 1)), "nearest", "pil"
    )
    cropped = crop_centre(image, crop, fill=(0,), down=down)
    assert (cropped.height, cropped.width) == crop


def test_of_a_strip_that_has_to_fit_inside_no_pixel_is_left() -> None:
    size = resized_size((1000, 1), (64, 96), 1.0, mode="pad")
    assert size == (96, 0)
    with pytest.raises(ValueError, match="height and width must be > 0"):
        resize(Image.new("L", (1000, 1)), size, "bilinear", "pil")
