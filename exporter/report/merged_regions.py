"""What was merged, as pictures: the image with every token drawn as the patches that it stands for.

In: the image that a bundle's sample holds and the groups of `merges.npz`. Out: one
picture per block for the report's slideshow. A token stands for patches that look alike, wherever they are, so its
region may lie in several places; each is filled with the mean colour of all the patches of the token.

Shape suffixes: L blocks, B images, T tokens before the first block, P patches, G patch rows, W patch columns, H height,
C the three colours.
"""

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from exporter.errors import BundleError
from exporter.report.content import Picture

MOST_PIXELS = 448
_PALETTE = 256
_BORDER_MIX = 0.55  # how far a border goes from its region's colour towards black or white

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


def square_patches(patches: int, height: int, width: int) -> tuple[int, int] | None:
    """Rows and columns of square patches in an image, pixels at the right and the bottom left over; None without any.

    There is at most one: as the side of a patch grows, neither its rows nor its columns become more.
    """
    for side in range(1, min(height, width) + 1):
        if (height // side) * (width // side) == patches:
            return height // side, width // side
    return None


def patch_grid(
    patches: int, height: int, width: int, stated: tuple[int, ...] | None = None
) -> tuple[int, int]:
    """Rows and columns of the patches that cover an image.

    Args:
        patches: how many.
        height: of the image in pixels.
        width: likewise.
        stated: rows and columns, where the bundle says them: its patches are not square, or overlap.

    Raises:
        BundleError: that number of square patches does not tile an image of this size, or what is stated does not.
    """
    if stated is not None:
        rows, columns = stated if len(stated) == 2 else (0, 0)
        if 1 <= rows <= height and 1 <= columns <= width and rows * columns == patches:
            return rows, columns
        raise BundleError(
            f"manifest.json: patch_grid: expected rows and columns of {patches} patches in {height}x{width} pixels, "
            f"got {list(stated)[:4]}; export the bundle again"
        )
    if (grid := square_patches(patches, height, width)) is not None:
        return grid
    raise BundleError(
        f"merges.npz: groups_LBT: expected as many patches as tile an image of {width}x{height} pixels in squares, "
        f"got {patches}; make the file again"
    )


def first_groups(groups_LBT: npt.NDArray[Any], tokens: int) -> Labels:
    """The groups of the first image, checked: (L, T) int64.

    Args:
        groups_LBT: integers: after each block, the number of the token that each original token is part of.
        tokens: T.

    Raises:
        BundleError: a number that no token has.
    """
    groups_LT = groups_LBT[:, 0]
    if groups_LT.min() < 0 or groups_LT.max() >= tokens:
        raise BundleError(
            f"merges.npz: groups_LBT: expected numbers of tokens from 0 to {tokens - 1}, got {groups_LT.min()} to "
            f"{groups_LT.max()}; make the file again"
        )
    groups: Labels = groups_LT.astype(np.int64)
    return groups


def draw_regions(image_HWC: Pixels, labels_GW: Labels) -> Pixels:
    """The image with every group in its mean colour, and a border between patches of different groups.

    Args:
        image_HWC: uint8, RGB.
        labels_GW: the group of each patch.

    Returns:
        uint8 RGB, at most 448 pixels high and wide, a whole number of pixels per patch.
    """
    rows, columns = labels_GW.shape
    height, width = _patch_size(image_HWC, rows, columns)
    longest = max(rows * height, columns * width)
    down, across = (max(1, MOST_PIXELS * side // longest) for side in (height, width))
    labels, colours_KC = _mean_colours(image_HWC, labels_GW)
    fill_GWC = colours_KC[labels]
    picture_HWC = fill_GWC.repeat(down, axis=0).repeat(across, axis=1)
    if min(down, across) > 2:
        border = _borders(labels.repeat(down, axis=0).repeat(across, axis=1))
        picture_HWC[border] = _contrasting(picture_HWC[border])
    return picture_HWC


def slideshow_pictures(
    image_HWC: Pixels, groups_LT: Labels, *, prefix: int, tokens: int, stated: tuple[int, ...] | None = None
) -> tuple[Picture, ...]:
    """The original, then the regions after every block.

    Args:
        image_HWC: uint8, RGB: the first image of the batch.
        groups_LT: from `first_groups`.
        prefix: tokens in front that stand for no patch.
        tokens: T.
        stated: rows and columns of patches, where the bundle says them.

    Raises:
        BundleError: the patches do not tile the image.
    """
    height, width = image_HWC.shape[:2]
    rows, columns = patch_grid(tokens - prefix, height, width, stated)
    original = Picture(
        png=png_bytes(_reduced(image_HWC)), size=(width, height), label=f"before block 0: {tokens} tokens"
    )
    pictures = [original]
    for block, groups_T in enumerate(groups_LT):
        drawn = draw_regions(image_HWC, groups_T[prefix:].reshape(rows, columns))
        label = f"after block {block}: {np.unique(groups_T).size} tokens"
        pictures.append(Picture(png=png_bytes(drawn), size=(drawn.shape[1], drawn.shape[0]), label=label))
    return tuple(pictures)


def _mean_colours(image_HWC: Pixels, labels_GW: Labels) -> tuple[Labels, npt.NDArray[np.uint8]]:
    """Group numbers 0..K-1 per patch, and the mean colour (K, C) over all pixels of each group."""
    rows, columns = labels_GW.shape
    means_GWC = _patch_means(image_HWC, rows, columns)
    _, labels = np.unique(labels_GW, return_inverse=True)
    labels = labels.reshape(rows, columns)
    sums_KC = np.zeros((int(labels.max()) + 1, 3))
    np.add.at(sums_KC, labels.reshape(-1), means_GWC.reshape(-1, 3))
    sizes_K1 = np.bincount(labels.reshape(-1))[:, None]
    return labels, np.rint(sums_KC / sizes_K1).astype(np.uint8)


def _patch_means(image_HWC: Pixels, rows: int, columns: int) -> npt.NDArray[np.float64]:
    """(G, W, C). Pixels that fill no whole patch, at the right and the bottom, belong to none."""
    height, width = _patch_size(image_HWC, rows, columns)
    tiles = image_HWC[: rows * height, : columns * width].reshape(rows, height, columns, width, 3)
    means: npt.NDArray[np.float64] = tiles.astype(np.float64).mean(axis=(1, 3))
    return means


def _patch_size(image_HWC: Pixels, rows: int, columns: int) -> tuple[int, int]:
    """Height and width of a patch in pixels: square wherever squares give as many rows and columns."""
    height, width = image_HWC.shape[0] // rows, image_HWC.shape[1] // columns
    side = min(height, width)
    is_square = image_HWC.shape[0] // side == rows and image_HWC.shape[1] // side == columns
    return (side, side) if is_square else (height, width)


def _borders(labels_HW: Labels) -> npt.NDArray[np.bool_]:
    """Pixels whose right or lower neighbour is of another group."""
    border = np.zeros(labels_HW.shape, dtype=bool)
    border[:, :-1] |= labels_HW[:, :-1] != labels_HW[:, 1:]
    border[:-1] |= labels_HW[:-1] != labels_HW[1:]
    return border


def _contrasting(colours_NC: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Dark regions get a lighter border, light ones a darker one."""
    luma_N1 = colours_NC @ np.array([[0.299], [0.587], [0.114]])
    goal_N1 = np.where(luma_N1 > 110, 0.0, 255.0)
    mixed: npt.NDArray[np.uint8] = np.rint(colours_NC + _BORDER_MIX * (goal_N1 - colours_NC)).astype(np.uint8)
    return mixed


def _reduced(image_HWC: Pixels) -> Pixels:
    """The image, made smaller if it is larger than a report draws."""
    image = Image.fromarray(image_HWC)
    image.thumbnail((MOST_PIXELS, MOST_PIXELS), Image.Resampling.LANCZOS)
    return np.asarray(image, dtype=np.uint8)


def png_bytes(image_HWC: Pixels) -> bytes:
    """An image (H, W, 3) uint8 as a PNG file; with a palette where that loses nothing."""
    image = Image.fromarray(image_HWC)
    colours, codes = np.unique(image_HWC.reshape(-1, 3), axis=0, return_inverse=True)
    if len(colours) <= _PALETTE:
        image = Image.fromarray(codes.reshape(image_HWC.shape[:2]).astype(np.uint8), mode="P")
        image.putpalette(colours.tobytes())
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return stream.getvalue()
