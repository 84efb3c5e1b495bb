"""The embedded default, `vit_digits`: a small ViT, its trained weights and the real scans that it never saw.

The files under `assets/` are written by `tools/train_vit_digits.py`; nothing here imports scikit-learn, of whose files
the training scans are read.

Shape suffixes: B scans, H height, W width, C channels.
"""

from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from exporter.models.preprocessing.preprocess import Preprocess

if TYPE_CHECKING:
    from timm.models import VisionTransformer

IMAGE_SIZE = 32
CLASSES = 10
SCAN_WHITE = 16  # the scans count the dark pixels of a 4x4 cell: 0 to 16

_ASSETS = Path(__file__).parent / "assets"
VIT_DIGITS_WEIGHTS = _ASSETS / "vit_digits.safetensors"
HELD_OUT_SCANS = _ASSETS / "digits_test.npz"

DIGITS_PREPROCESS = Preprocess(
    image_size=(IMAGE_SIZE, IMAGE_SIZE),
    interpolation="bicubic",
    crop_fraction=1.0,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    channel_order="rgb",
    layout="NCHW",
)


@dataclass(frozen=True, kw_only=True)
class DigitScans:
    """Labelled digit images.

    Attributes:
        scans_BHW: uint8, (B, 8, 8), ink 0..16 per cell: the scans themselves.
        images_BHWC: uint8, (B, 32, 32, 3), RGB: the same, enlarged.
        labels: int64, (B,), the digit on each image.
    """

    scans_BHW: npt.NDArray[np.uint8]
    images_BHWC: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]


def build_vit_digits() -> "VisionTransformer":
    """The architecture with fresh weights: 64 patches and a class token, 8 blocks, 632,890 parameters."""
    from timm.models import VisionTransformer

    return VisionTransformer(
        img_size=IMAGE_SIZE,
        patch_size=4,
        in_chans=3,
        num_classes=CLASSES,
        embed_dim=80,
        depth=8,
        num_heads=5,
        mlp_ratio=4.0,
    )


def enlarge_scans(scans_BHW: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Turns scans into the images that the model is trained and measured on.

    Counts 0..16 become grey levels 0..255 (rounded), the 8x8 grid is resized to 32x32 with PIL's bicubic
    filter, and the grey is repeated into R, G and B.

    Args:
        scans_BHW: uint8, (B, 8, 8), values 0..16.

    Returns:
        uint8, (B, 32, 32, 3).
    """
    grey_BHW = np.rint(scans_BHW * (255.0 / SCAN_WHITE)).astype(np.uint8)
    size = (IMAGE_SIZE, IMAGE_SIZE)
    pictures = [Image.fromarray(grey).resize(size, Image.Resampling.BICUBIC) for grey in grey_BHW]
    large_BHW = np.stack([np.asarray(picture) for picture in pictures])
    return np.repeat(large_BHW[..., None], 3, axis=-1)


def held_out_scans() -> DigitScans:
    """The 454 scans that training never saw, in the order of scikit-learn's data set."""
    with np.load(HELD_OUT_SCANS, allow_pickle=False) as archive:
        scans_BHW, labels = archive["scans"], archive["labels"]
    return DigitScans(
        scans_BHW=scans_BHW, images_BHWC=enlarge_scans(scans_BHW), labels=labels.astype(np.int64)
    )


def training_scans() -> npt.NDArray[np.uint8]:
    """The scans that the models were trained on: uint8, (1343, 8, 8), in the order of scikit-learn's data set."""
    table = Path(str(distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")))
    scans_BHW = np.loadtxt(table, delimiter=",", dtype=np.uint8)[:, :-1].reshape(-1, 8, 8)
    with np.load(HELD_OUT_SCANS, allow_pickle=False) as archive:
        return np.delete(scans_BHW, archive["places"], axis=0)
