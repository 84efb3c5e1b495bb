"""Inputs of any channels as pictures."""

import numpy as np
import pytest
from PIL import Image

from exporter.report.visible import visible


def pixels(channels: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (5, 7, channels), dtype=np.uint8)


def test_three_channels_are_the_colours() -> None:
    np.testing.assert_array_equal(visible(pixels(3)), pixels(3))


def test_one_channel_is_gray() -> None:
    np.testing.assert_array_equal(visible(pixels(1)), pixels(1).repeat(3, axis=2))


def test_a_fourth_channel_is_how_opaque_the_others_are() -> None:
    """Pillow lays over white in whole numbers."""
    white = Image.new("RGBA", (7, 5), (255, 255, 255, 255))
    expected = np.asarray(Image.alpha_composite(white, Image.fromarray(pixels(4))).convert("RGB"), dtype=int)
    assert np.abs(visible(pixels(4)) - expected).max() <= 1


@pytest.mark.parametrize("channels", [2, 5])
def test_other_channels_are_shown_as_their_mean(channels: int) -> None:
    expected = np.rint(pixels(channels).astype(float).mean(axis=2))
    for colour in range(3):
        np.testing.assert_array_equal(visible(pixels(channels))[:, :, colour], expected)
