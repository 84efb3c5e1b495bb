"""What parity is shown."""

import numpy as np
import pytest
import torch

from exporter.models import ExampleInput, Preprocess
from exporter.validation import image_inputs, step_inputs, tensor_inputs

PREPROCESS = Preprocess(
    image_size=(16, 16), interpolation="bicubic", crop_fraction=0.9, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2)
)


GRAY = Preprocess(
    image_size=(16, 24), interpolation="bicubic", crop_fraction=0.9, mean=(0.5,), std=(0.2,), fill=(0,),
    channel_order="gray",
)  # fmt: skip
RGBA = Preprocess(
    image_size=(24, 16), interpolation="bicubic", crop_fraction=0.9, mean=(0.5,) * 4, std=(0.2,) * 4, fill=(0,) * 4,
    channel_order="rgba",
)  # fmt: skip


@pytest.mark.parametrize("preprocess", [pytest.param(GRAY, id="gray"), pytest.param(RGBA, id="rgba")])
@pytest.mark.parametrize("as_bytes", [False, True])
def test_pictures_have_the_models_channels_and_size(preprocess: Preprocess, as_bytes: bool) -> None:
    channels, height, width = preprocess.input_shape
    planes = image_inputs(preprocess, batch=2, as_bytes=as_bytes, channels_last=False)
    pixels = image_inputs(preprocess, batch=2, as_bytes=as_bytes, channels_last=True)

    assert {each.shape for each in planes.values()} == {(2, channels, height, width)}
    assert {each.shape for each in pixels.values()} == {(2, height, width, channels)}
    assert np.ptp(planes["flat"], axis=(0, 2, 3)).max() == 0
    assert len(np.unique(planes["noise"])) > 50


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_a_photo_comes_first_then_noise_then_one_colour(batch: int) -> None:
    inputs = image_inputs(PREPROCESS, batch=batch, as_bytes=False, channels_last=False)

    assert list(inputs) == ["photo", "noise", "flat"]
    assert {each.shape for each in inputs.values()} == {(batch, 3, 16, 16)}
    assert {each.dtype for each in inputs.values()} == {np.dtype(np.float32)}
    assert np.ptp(inputs["flat"], axis=(0, 2, 3)).max() == 0
    assert inputs["photo"].std() > 0.1
    assert len(np.unique(inputs["photo"], axis=0)) == batch


def test_bytes_are_the_same_pictures() -> None:
    floats = image_inputs(PREPROCESS, batch=2, as_bytes=False, channels_last=False)
    pixels = image_inputs(PREPROCESS, batch=2, as_bytes=True, channels_last=True)
    mean, std = np.array(PREPROCESS.mean), np.array(PREPROCESS.std)

    assert pixels["photo"].shape == (2, 16, 16, 3)
    assert pixels["photo"].dtype == np.uint8
    normalized = ((pixels["photo"] / 255 - mean) / std).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(normalized, floats["photo"], atol=1e-5)


def test_inputs_are_the_same_every_time() -> None:
    first, second = (image_inputs(PREPROCESS, batch=2, as_bytes=True, channels_last=False) for _ in range(2))

    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_token_ids_are_within_the_vocabulary() -> None:
    example = ExampleInput(shape=(77,), dtype=torch.int64, vocabulary=99)

    (case,) = tensor_inputs({"input_ids": example}, batch=3).values()
    ids = case["input_ids"]

    assert ids.shape == (3, 77)
    assert ids.dtype == np.int64
    assert ids.min() >= 0
    assert ids.max() < 99


def test_raw_tensors_for_a_program_that_says_nothing() -> None:
    example = ExampleInput(shape=(3, 8, 8), dtype=torch.float32)
    cases = tensor_inputs({"images": example}, batch=2)
    inputs = {case: each["images"] for case, each in cases.items()}

    assert {each.shape for each in inputs.values()} == {(2, 3, 8, 8)}
    assert {each.dtype for each in inputs.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    ("batch", "cases"),
    [(1, {"noise": [16], "short": [3], "half": [8]}), (3, {"noise": [16] * 3, "short": [3]})],
)
def test_texts_fill_all_slots_few_and_half_of_them(batch: int, cases: dict[str, list[int]]) -> None:
    def ids(vocabulary: int, *, is_mask: bool = False) -> ExampleInput:
        return ExampleInput(shape=(16,), dtype=torch.int64, vocabulary=vocabulary, is_mask=is_mask)

    found = tensor_inputs({"input_ids": ids(50), "attention_mask": ids(2, is_mask=True)}, batch=batch)

    assert found.keys() == cases.keys()
    for name, lengths in cases.items():
        mask = found[name]["attention_mask"]
        assert mask.shape == (batch, 16)
        assert mask.sum(axis=1)[: len(lengths)].tolist() == lengths
        assert (np.diff(mask, axis=1) <= 0).all()


LATENTS = ExampleInput(shape=(4, 8, 8), dtype=torch.float32)
STEP = ExampleInput(shape=(), dtype=torch.float32, steps=1000)
TEXT = ExampleInput(shape=(5, 12), dtype=torch.float32)
CLASS = ExampleInput(shape=(), dtype=torch.int64, vocabulary=10)


def test_a_denoiser_sees_noise_at_every_step_and_flat_conditions_once() -> None:
    cases = step_inputs({"latents": LATENTS, "step": STEP, "text": TEXT}, batch=2, steps=(0, 500, 999))

    assert list(cases) == ["step 0", "step 500", "step 999", "flat"]
    assert [case["step"].tolist() for case in cases.values()] == [
        [0.0] * 2,
        [500.0] * 2,
        [999.0] * 2,
        [500.0] * 2,
    ]
    assert all(np.unique(case["latents"]).size > 500 for case in cases.values())
    assert [np.unique(case["text"]).size == 1 for case in cases.values()] == [False, False, False, True]


def test_a_class_is_no_condition_that_can_be_flat() -> None:
    cases = step_inputs({"latents": LATENTS, "step": STEP, "class": CLASS}, batch=2, steps=(7,))

    assert list(cases) == ["step 7"]
