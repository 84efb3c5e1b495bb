"""Merged tokens as pictures: which patches, which colour, where the borders run."""

import io
from collections import deque
from itertools import product

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from exporter.errors import BundleError
from exporter.report.merged_regions import (
    draw_regions,
    first_groups,
    patch_grid,
    slideshow_pictures,
    square_patches,
)
from tests.support.report_bundle import noise_image


def decoded(png: bytes) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def cell_centres(picture_HWC: npt.NDArray[np.uint8], side: int) -> npt.NDArray[np.uint8]:
    cell = picture_HWC.shape[0] // side
    return picture_HWC[cell // 2 :: cell, cell // 2 :: cell]


def connected_areas(picture_HWC: npt.NDArray[np.uint8], colours: set[tuple[int, ...]]) -> int:
    """Areas of one colour that touch at their sides, among the given colours; a flood fill."""
    height, width, _ = picture_HWC.shape
    seen = np.zeros((height, width), dtype=bool)
    areas = 0
    for start in product(range(height), range(width)):
        colour = tuple(map(int, picture_HWC[start]))
        if seen[start] or colour not in colours:
            continue
        areas += 1
        seen[start] = True
        queue = deque([start])
        while queue:
            row, column = queue.popleft()
            for place in ((row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)):
                inside = 0 <= place[0] < height and 0 <= place[1] < width
                if inside and not seen[place] and tuple(map(int, picture_HWC[place])) == colour:
                    seen[place] = True
                    queue.append(place)
    return areas


def test_region_has_the_mean_colour_of_all_its_pixels_wherever_they_are() -> None:
    image_HWC = np.zeros((4, 4, 3), np.uint8)
    image_HWC[:2, :2] = (10, 20, 30)  # patch 0
    image_HWC[:2, 2:] = (200, 0, 0)  # patch 1
    image_HWC[2:, :2] = (0, 100, 0)  # patch 2
    image_HWC[2:, 2:] = (30, 40, 90)  # patch 3, merged with patch 0 across the corner
    image_HWC[2, 2] = (34, 40, 90)  # one of its four pixels: 4 / 4 / 2 = 0.5 more on the mean

    centres = cell_centres(draw_regions(image_HWC, np.array([[7, 1], [2, 7]])), side=2)

    # (10 + 31) / 2 = 20.5, rounded to even; (20 + 40) / 2; (30 + 90) / 2
    assert centres[0, 0].tolist() == centres[1, 1].tolist() == [20, 30, 60]
    assert centres[0, 1].tolist() == [200, 0, 0]
    assert centres[1, 0].tolist() == [0, 100, 0]


@given(groups=st.lists(st.integers(0, 5), min_size=16, max_size=16))
def test_as_many_colours_are_filled_in_as_there_are_groups(groups: list[int]) -> None:
    picture = draw_regions(noise_image(32), np.array(groups).reshape(4, 4))

    centres = {tuple(colour) for colour in cell_centres(picture, side=4).reshape(-1, 3).tolist()}

    assert len(centres) == len(set(groups))


def test_borders_separate_groups_and_nothing_else() -> None:
    labels = np.array([[0, 0, 1], [2, 0, 1], [1, 2, 2]])  # six areas that touch at sides: 0, 1, 1, 2, 2 2
    picture = draw_regions(noise_image(24), labels)
    fills = {tuple(colour) for colour in cell_centres(picture, side=3).reshape(-1, 3).tolist()}

    # By hand: {(0,0),(0,1),(1,1)}, {(0,2),(1,2)}, {(1,0)}, {(2,0)}, {(2,1),(2,2)}.
    assert connected_areas(picture, fills) == 5


def test_one_group_has_no_border_at_all() -> None:
    picture = draw_regions(noise_image(16), np.zeros((2, 2), np.int64))

    assert len(np.unique(picture.reshape(-1, 3), axis=0)) == 1


def test_border_is_darker_on_light_regions_and_lighter_on_dark_ones() -> None:
    image_HWC = np.zeros((2, 4, 3), np.uint8)
    image_HWC[:, :2], image_HWC[:, 2:] = 250, 5

    light_first = draw_regions(image_HWC, np.array([[0, 1]]))[0, :, 0]
    dark_first = draw_regions(image_HWC[:, ::-1], np.array([[0, 1]]))[0, :, 0]

    assert 5 < min(value for value in light_first if value not in (5, 250)) < 250
    assert 5 < max(value for value in dark_first if value not in (5, 250)) < 250


@pytest.mark.parametrize("side", [7, 14, 37, 64])
def test_pictures_are_at_most_448_pixels_and_whole_patches(side: int) -> None:
    picture = draw_regions(noise_image(2 * side), np.zeros((side, side), np.int64))

    assert picture.shape[0] <= 448
    assert picture.shape[0] % side == 0
    assert picture.shape[0] > 448 - side


def test_slideshow_starts_with_the_original_and_counts_tokens() -> None:
    image_HWC = noise_image(8)
    groups_LT = np.array([[0, 1, 1, 2, 3], [0, 1, 1, 1, 1]])

    pictures = slideshow_pictures(image_HWC, groups_LT, prefix=1, tokens=5)

    assert [each.label for each in pictures] == [
        "before block 0: 5 tokens",
        "after block 0: 4 tokens",
        "after block 1: 2 tokens",
    ]
    np.testing.assert_array_equal(decoded(pictures[0].png), image_HWC)
    assert np.unique(decoded(pictures[2].png).reshape(-1, 3), axis=0).shape[0] == 1


def test_regions_follow_the_groups_of_their_block_and_skip_the_prefix() -> None:
    image_HWC = noise_image(8)
    groups_LT = np.array([[9, 9, 0, 1, 2, 3]])  # two prefix tokens, then four patches

    pictures = slideshow_pictures(image_HWC, groups_LT, prefix=2, tokens=6)

    expected = draw_regions(image_HWC, np.array([[0, 1], [2, 3]]))
    np.testing.assert_array_equal(decoded(pictures[1].png), expected)


def test_more_colours_than_a_palette_holds_are_kept() -> None:
    image_HWC = noise_image(40)
    groups_LT = np.arange(401)[None]  # 20 x 20 patches, each for itself

    picture = decoded(slideshow_pictures(image_HWC, groups_LT, prefix=1, tokens=401)[1].png)

    means = image_HWC.reshape(20, 2, 20, 2, 3).astype(float).mean(axis=(1, 3))
    np.testing.assert_allclose(cell_centres(picture, side=20), means, atol=0.5)


def test_large_original_is_made_smaller() -> None:
    pictures = slideshow_pictures(noise_image(518), np.zeros((1, 1370), np.int64), prefix=1, tokens=1370)

    assert decoded(pictures[0].png).shape == (448, 448, 3)


def test_pixels_beyond_the_last_whole_patch_belong_to_no_region() -> None:
    image_HWC = np.full((9, 9, 3), 60, np.uint8)
    image_HWC[8:], image_HWC[:, 8:] = 255, 255

    picture = draw_regions(image_HWC, np.zeros((2, 2), np.int64))

    assert picture.reshape(-1, 3).max() == 60


@pytest.mark.parametrize(
    ("patches", "height", "width", "expected"),
    [
        pytest.param(196, 224, 224, (14, 14), id="square"),
        pytest.param(14 * 7, 224, 112, (14, 7), id="tall"),
        pytest.param(24 * 32, 384, 512, (24, 32), id="wide"),
        pytest.param(225, 250, 250, (15, 15), id="with a remainder"),
        pytest.param(6 * 8, 100, 140, (6, 8), id="with two remainders"),
        pytest.param(36, 64, 160, None, id="as many as a square has"),
        pytest.param(1, 32, 32, (1, 1), id="one"),
        pytest.param(1, 32, 60, (1, 1), id="one, and pixels left over"),
    ],
)
def test_grid_is_that_of_square_patches(
    patches: int, height: int, width: int, expected: tuple[int, int] | None
) -> None:
    assert square_patches(patches, height, width) == expected


@given(side=st.integers(1, 40), height=st.integers(1, 300), width=st.integers(1, 300))
def test_grid_of_any_square_patches_is_found(side: int, height: int, width: int) -> None:
    rows, columns = height // side, width // side
    if rows and columns:
        assert square_patches(rows * columns, height, width) == (rows, columns)


def test_what_a_bundle_states_is_taken() -> None:
    assert patch_grid(48, 64, 96, (4, 12)) == (4, 12)


@pytest.mark.parametrize(
    "stated",
    [
        pytest.param((4, 11), id="other patches"),
        pytest.param((48,), id="no columns"),
        pytest.param((-4, -12), id="negative"),
        pytest.param((1, 48), id="more columns than pixels"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(stated: tuple[int, ...]) -> None:
    with pytest.raises(BundleError, match=r"patch_grid: expected rows and columns of 48 patches in 64x32"):
        patch_grid(48, 64, 32, stated)


@pytest.mark.parametrize(
    ("size", "labels", "picture"),
    [
        pytest.param((64, 96), (4, 12), (448 * 64 // 96, 444), id="high patches"),
        pytest.param((96, 64), (12, 4), (444, 448 * 64 // 96), id="wide patches"),
        pytest.param((40, 100), (2, 5), (178, 445), id="square patches"),
    ],
)
def test_regions_of_an_image_that_is_not_square_have_its_aspect(
    size: tuple[int, int], labels: tuple[int, int], picture: tuple[int, int]
) -> None:
    """Every patch is its own region: its colour is its mean, in its place."""
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    labels_GW = np.arange(labels[0] * labels[1]).reshape(labels)

    drawn = draw_regions(pixels, labels_GW)

    down, across = drawn.shape[0] // labels[0], drawn.shape[1] // labels[1]
    assert drawn.shape[:2] == (down * labels[0], across * labels[1])
    assert np.abs(np.subtract(drawn.shape[:2], picture)).max() <= max(labels)
    means = pixels.reshape(labels[0], size[0] // labels[0], labels[1], size[1] // labels[1], 3).mean(
        axis=(1, 3)
    )
    np.testing.assert_allclose(drawn[down // 2 :: down, across // 2 :: across], means, atol=0.5)


def test_patches_that_do_not_tile_the_image_are_refused() -> None:
    with pytest.raises(BundleError, match="merges.npz: groups_LBT: expected .* 224x224 pixels .* got 195"):
        patch_grid(195, 224, 224)


def test_first_image_of_a_batch_is_taken() -> None:
    groups_LBT = np.stack([np.zeros((2, 5)), np.ones((2, 5))], axis=1).astype(np.int32)

    groups_LT = first_groups(groups_LBT, 5)

    assert groups_LT.tolist() == [[0] * 5, [0] * 5]
