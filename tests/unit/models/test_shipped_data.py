"""What ships with a model, and that texts, labels and images of one scan say the same."""

from dataclasses import replace

import numpy as np
import pytest

from exporter.errors import ModelUnavailableError
from exporter.models import ModelRequest, ShippedData, shipped_data, ships_images
from exporter.models.shipped.digits import held_out_scans

CLIP = ModelRequest(model="clip_digits")


def of_clip(request: ModelRequest = CLIP) -> ShippedData:
    shipped = shipped_data(request)
    assert shipped is not None
    return shipped


@pytest.mark.parametrize("model", ["vit_digits", "clip_digits"])
def test_the_held_out_scans_ship_with_the_models_of_the_package(model: str) -> None:
    shipped = shipped_data(ModelRequest(model=model))

    assert ships_images(ModelRequest(model=model))
    assert shipped is not None
    np.testing.assert_array_equal(shipped.images_BHWC, held_out_scans().images_BHWC)
    np.testing.assert_array_equal(shipped.labels, held_out_scans().labels)


@pytest.mark.parametrize("model", ["vit_b16", "clip_vit_b32", "timm:test_vit", "hf:owner/name", "model.pt2"])
def test_nothing_ships_with_models_from_elsewhere(model: str) -> None:
    assert not ships_images(ModelRequest(model=model))
    assert shipped_data(ModelRequest(model=model)) is None


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(ModelUnavailableError, match="clip_digits"):
        shipped_data(ModelRequest(model="clip_digit"))


def test_a_classifier_brings_no_texts() -> None:
    shipped = shipped_data(ModelRequest(model="vit_digits"))

    assert shipped is not None
    assert (shipped.class_names, shipped.templates, shipped.captions) == (None, (), None)


def test_class_names_are_the_digits_words_in_the_order_of_the_labels() -> None:
    words = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

    assert of_clip().class_names == words


def test_templates_are_several_and_have_one_place_each() -> None:
    templates = of_clip().templates

    assert len(templates) >= 3
    assert {template.count("{}") for template in templates} == {1}
    assert {template.count("{") + template.count("}") for template in templates} == {2}


def test_every_image_has_a_caption_that_names_its_digit_and_no_other() -> None:
    shipped = of_clip()
    assert shipped.captions is not None and shipped.class_names is not None

    named = [
        [word for word in shipped.class_names if word in caption.split()] for caption in shipped.captions
    ]

    assert named == [[shipped.class_names[label]] for label in shipped.labels]


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(replace(CLIP, tower="text"), id="text tower"),
        pytest.param(replace(CLIP, weights="random"), id="random weights"),
    ],
)
def test_what_ships_depends_on_neither_tower_nor_weights(request_: ModelRequest) -> None:
    assert of_clip(request_).captions == of_clip().captions
