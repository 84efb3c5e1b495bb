"""The embedded `vit_fashion`: a ViT of 196 patches, its trained weights and photos of clothing that it never saw.

The files under `assets/` are written by `tools/train_vit_fashion.py`. The photos are some of Fashion-MNIST (Xiao,
Rasul, Vollgraf, 2017), under the MIT licence; see NOTICE.

Shape suffixes: B photos, H height, W width, C channels.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from exporter.models.preprocessing.preprocess import Preprocess

if TYPE_CHECKING:
    from timm.models import VisionTransformer

FASHION_SIZE = 28
FASHION_CLASSES = (
    "T-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)

_ASSETS = Path(__file__).parent / "assets"
VIT_FASHION_WEIGHTS = _ASSETS / "vit_fashion.safetensors"
FASHION_PHOTOS = _ASSETS / "fashion_test.npz"

FASHION_PREPROCESS = Preprocess(
    image_size=(FASHION_SIZE, FASHION_SIZE),
    interpolation="bicubic",
    crop_fraction=1.0,
    mean=(0.286, 0.286, 0.286),
    std=(0.353, 0.353, 0.353),
    channel_order="rgb",
    layout="NCHW",
)


@dataclass(frozen=True, kw_only=True)
class FashionPhotos:
    """Labelled photos of clothing.

    Attributes:
        images_BHWC: uint8, (B, 28, 28, 3), RGB: the grey photos, repeated.
        labels: int64, (B,), an index into `FASHION_CLASSES`.
    """

    images_BHWC: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]


def held_out_photos() -> FashionPhotos:
    """The first 2,000 of the data set's official test images, in its order."""
    with np.load(FASHION_PHOTOS, allow_pickle=False) as archive:
        images, labels = archive["images"], archive["labels"]
    return FashionPhotos(images_BHWC=_colored(images), labels=labels.astype(np.int64))


def training_photos() -> npt.NDArray[np.uint8]:
    """The first 256 images that the model was trained on: uint8 (256, 28, 28, 3)."""
    with np.load(FASHION_PHOTOS, allow_pickle=False) as archive:
        return _colored(archive["training_images"])


def _colored(grey_BHW: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.repeat(grey_BHW[..., None], 3, axis=-1)


def build_vit_fashion() -> "VisionTransformer":
    """The architecture with fresh weights: 196 patches and a class token, 6 blocks, 1,536,346 parameters."""
    from timm.models import VisionTransformer

    return VisionTransformer(
        img_size=FASHION_SIZE,
        patch_size=2,
        in_chans=3,
        num_classes=len(FASHION_CLASSES),
        embed_dim=144,
        depth=6,
        num_heads=3,
        mlp_ratio=4.0,
    )
