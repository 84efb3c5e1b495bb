"""How close the features of every patch stay to the dense model's, as a picture.

In: the cosines of `validation.json`. Out: a picture for the report, dark where features differ most.
"""

import numpy as np

from exporter.errors import BundleError
from exporter.records import PatchFidelity
from exporter.report import number_text as show
from exporter.report.content import Picture
from exporter.report.merged_regions import MOST_PIXELS, png_bytes

_DARK, _LIGHT = np.array([20.0, 30.0, 90.0]), np.array([250.0, 245.0, 205.0])
_SHADES = 64


def patch_map(target: str, found: PatchFidelity) -> Picture:
    """Every patch as a square: `_DARK` for the least mean cosine, `_LIGHT` for the largest.

    Raises:
        BundleError: the rows are not of one length, or empty.
    """
    if len({len(row) for row in found.grid}) != 1 or not found.grid[0]:
        raise BundleError(
            "validation.json: patches: expected a grid of rows of one length; make the file again"
        )
    cosines_GW = np.array(found.grid)
    least, most = float(cosines_GW.min()), float(cosines_GW.max())
    share_GW1 = (cosines_GW - least)[:, :, None] / ((most - least) or 1.0)
    shade_GW1 = np.rint(share_GW1 * _SHADES) / _SHADES if most > least else np.ones_like(share_GW1)
    colours_GWC = np.rint(_DARK + shade_GW1 * (_LIGHT - _DARK)).astype(np.uint8)
    side = max(1, MOST_PIXELS // max(cosines_GW.shape))
    picture_HWC = colours_GWC.repeat(side, axis=0).repeat(side, axis=1)
    height, width, _ = picture_HWC.shape
    label = f"{target}: mean cosine of a patch from {show.significant(least, 4)} (dark) to {show.significant(most, 4)}"
    return Picture(png=png_bytes(picture_HWC), size=(width, height), label=label)
