"""The embedded `vit_fashion` and its photos: small files, and right often enough."""

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from exporter.models import ModelRequest, is_raced, load, shipped_data, training_images
from exporter.models.preprocessing.pixels import preprocess_image
from exporter.models.shipped.fashion import (
    FASHION_PHOTOS,
    FASHION_PREPROCESS,
    VIT_FASHION_WEIGHTS,
    build_vit_fashion,
    held_out_photos,
)

REQUEST = ModelRequest(model="vit_fashion")


def test_shipped_weights_are_right_on_nine_of_ten_photos() -> None:
    photos, model = held_out_photos(), load(REQUEST).module
    pictures = [Image.fromarray(image) for image in photos.images_BHWC[:300]]
    images_BCHW = np.stack([preprocess_image(picture, FASHION_PREPROCESS) for picture in pictures])

    assert isinstance(model, nn.Module)
    with torch.no_grad():
        predicted = model(torch.from_numpy(images_BCHW)).argmax(dim=1).numpy()

    assert np.mean(predicted == photos.labels[:300]) >= 0.9


def test_architecture_is_196_patches_and_a_class_token_through_6_blocks() -> None:
    model = build_vit_fashion()

    # patches 12*144+144, class token 144, positions 197*144, final norm 288, head 144*10+10;
    # a block: two norms 576, qkv 144*432+432, projection 144*144+144, MLP 144*576+576 and 576*144+144
    block = 576 + 62_640 + 20_880 + 83_520 + 83_088
    assert (
        sum(value.numel() for value in model.parameters()) == 1_872 + 144 + 28_368 + 6 * block + 288 + 1_450
    )


def test_files_are_small_and_of_half_precision() -> None:
    assert {value.dtype for value in load_file(VIT_FASHION_WEIGHTS).values()} == {torch.float16}
    assert VIT_FASHION_WEIGHTS.stat().st_size <= 6_000_000
    assert FASHION_PHOTOS.stat().st_size <= 2_000_000


def test_photos_are_measured_on_or_calibrated_on_but_never_both() -> None:
    data, calibration = shipped_data(REQUEST), training_images(REQUEST)

    assert data is not None and calibration is not None
    assert data.images_BHWC.shape == (2000, 28, 28, 3) and calibration.shape == (256, 28, 28, 3)
    assert np.bincount(data.labels).min() >= 150
    seen = {image.tobytes() for image in calibration}
    assert not any(image.tobytes() in seen for image in data.images_BHWC)


def test_only_the_model_that_shows_a_gain_is_raced_unasked() -> None:
    assert is_raced(REQUEST)
    assert not is_raced(ModelRequest(model="vit_digits"))
