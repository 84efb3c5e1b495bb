"""The embedded model and its scans: what ships is small, never seen in training, and right often enough."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.datasets import load_digits  # type: ignore[import-untyped]
from timm.layers.attention import Attention

from exporter.models.preprocessing.pixels import preprocess_image
from exporter.models.shipped.digits import (
    DIGITS_PREPROCESS,
    HELD_OUT_SCANS,
    VIT_DIGITS_WEIGHTS,
    build_vit_digits,
    enlarge_scans,
    held_out_scans,
    training_scans,
)

TWO_MEGABYTES = 2_000_000


def test_shipped_weights_reach_97_percent_on_the_held_out_scans() -> None:
    model = build_vit_digits().eval()
    model.load_state_dict({name: value.float() for name, value in load_file(VIT_DIGITS_WEIGHTS).items()})
    scans = held_out_scans()
    pictures = [Image.fromarray(image) for image in scans.images_BHWC]
    images_BCHW = np.stack([preprocess_image(picture, DIGITS_PREPROCESS) for picture in pictures])

    with torch.no_grad():
        predicted = model(torch.from_numpy(images_BCHW)).argmax(dim=1).numpy()

    assert len(scans.labels) >= 450
    assert np.mean(predicted == scans.labels) >= 0.97


def test_architecture_is_64_patches_and_a_class_token_through_8_blocks_of_5_heads() -> None:
    model = build_vit_digits()

    assert model.patch_embed.num_patches == 64
    assert model.num_prefix_tokens == 1
    assert [module.num_heads for module in model.modules() if isinstance(module, Attention)] == [5] * 8
    # patches 48*80+80, class token 80, positions 65*80, 8 blocks, final norm 160, head 80*10+10;
    # a block: two norms 320, qkv 80*240+240, projection 80*80+80, MLP 80*320+320 and 320*80+80
    block = 320 + 19_440 + 6_480 + 25_920 + 25_680
    assert sum(value.numel() for value in model.parameters()) == 3_920 + 80 + 5_200 + 8 * block + 160 + 810


def test_shipped_weights_are_fp16_and_at_most_two_megabytes() -> None:
    weights = load_file(VIT_DIGITS_WEIGHTS)

    assert {value.dtype for value in weights.values()} == {torch.float16}
    assert VIT_DIGITS_WEIGHTS.stat().st_size <= TWO_MEGABYTES
    assert HELD_OUT_SCANS.stat().st_size <= 100_000


def test_shipped_scans_are_those_of_scikit_learn_at_their_recorded_places() -> None:
    bunch = load_digits()

    with np.load(HELD_OUT_SCANS) as archive:
        scans_BHW, labels, places = archive["scans"], archive["labels"], archive["places"]

    assert scans_BHW.dtype == np.uint8
    assert scans_BHW.shape == (len(places), 8, 8)
    np.testing.assert_array_equal(scans_BHW, bunch.images[places])
    np.testing.assert_array_equal(labels, bunch.target[places])


def test_held_out_scans_are_rgb_bytes_with_an_integer_label_each() -> None:
    scans = held_out_scans()

    assert scans.images_BHWC.dtype == np.uint8
    assert scans.labels.dtype == np.int64
    assert scans.images_BHWC.shape == (len(scans.labels), 32, 32, 3)
    assert set(scans.labels.tolist()) == set(range(10))


@pytest.mark.parametrize(
    ("count", "grey"),
    [pytest.param(0, 0, id="empty"), pytest.param(8, 128, id="half"), pytest.param(16, 255, id="full")],
)
def test_enlarging_a_flat_scan_gives_its_grey_level_in_every_channel(count: int, grey: int) -> None:
    images_BHWC = enlarge_scans(np.full((2, 8, 8), count, dtype=np.uint8))

    np.testing.assert_array_equal(images_BHWC, np.full((2, 32, 32, 3), grey, dtype=np.uint8))


def test_enlarging_keeps_the_scans_orientation() -> None:
    scan_BHW = np.zeros((1, 8, 8), dtype=np.uint8)
    scan_BHW[0, 1, 6] = 16  # second row from the top, second column from the right

    image_HW = enlarge_scans(scan_BHW)[0, :, :, 0]

    row, column = divmod(int(image_HW.argmax()), 32)
    assert (row // 4, column // 4) == (1, 6)


def test_preprocessing_an_enlarged_scan_neither_resizes_nor_crops() -> None:
    image_HWC = held_out_scans().images_BHWC[0]

    prepared_CHW = preprocess_image(Image.fromarray(image_HWC), DIGITS_PREPROCESS)

    np.testing.assert_allclose(prepared_CHW, image_HWC.transpose(2, 0, 1) / 127.5 - 1.0, rtol=0, atol=1e-6)


def test_training_scans_are_all_that_are_not_held_out() -> None:
    counted = load_digits().images.astype(np.uint8)
    kept = {scan.tobytes() for scan in held_out_scans().scans_BHW}

    found = training_scans()

    assert len(found) == len(counted) - len(held_out_scans().labels)
    assert {scan.tobytes() for scan in found} | kept == {scan.tobytes() for scan in counted}
    assert not {scan.tobytes() for scan in found} & kept
