"""The pictures of a bundle's report: which image is drawn, how, and with which groups."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from exporter.errors import BundleError
from exporter.report import report_bundle
from exporter.signature import TensorSpec
from tests.support.report_bundle import Form, alike_groups, make_bundle, noise_image
from tests.unit.report.conftest import Make
from tests.unit.report.reading import taken_apart


def test_pictures_start_with_the_image_of_the_sample_with_its_normalisation_undone(make: Make) -> None:
    image = noise_image(32)

    html = report_bundle(make(image_HWC=image, merges=alike_groups(image, Form()))).html

    first = base64.b64decode(re.findall(r"data:image/png;base64,([\w+/=]+)", html)[0])
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(first)).convert("RGB")), image)
    assert "after block 2: 7 tokens" in html


def test_batch_shows_its_first_image_whatever_the_layout(tmp_path: Path) -> None:
    image, form = noise_image(32), Form()
    groups = alike_groups(image, form)
    as_float = report_bundle(make_bundle(tmp_path / "float", image_HWC=image, merges=groups)).html

    bundle = make_bundle(
        tmp_path / "bytes",
        merges=np.repeat(groups, 2, axis=1),
        input="uint8",
        layout="nhwc",
        inputs=(TensorSpec(name="images", dtype="uint8", shape=(2, 32, 32, 3)),),
    )
    images = np.stack([image, 255 - image])
    np.savez(bundle.path / "sample.npz", images=images, logits=np.zeros((1, 10), np.float32))
    as_bytes = report_bundle(bundle).html

    pictures = [re.findall(r"data:image/png;base64,[\w+/=]+", html) for html in (as_float, as_bytes)]
    assert len(pictures[0]) == 4
    assert pictures[0] == pictures[1]


def test_given_image_is_cropped_as_the_model_sees_it_and_drawn_with_the_given_groups(make: Make) -> None:
    flat = Image.new("RGB", (60, 40), (77, 88, 99))

    html = report_bundle(make(), image=flat, groups_LBT=np.zeros((3, 1, 17), np.int32)).html

    pictures = re.findall(r"data:image/png;base64,([\w+/=]+)", html)
    drawn = [np.asarray(Image.open(io.BytesIO(base64.b64decode(each))).convert("RGB")) for each in pictures]
    assert [each.shape for each in drawn] == [(32, 32, 3), *[(448, 448, 3)] * 3]
    assert all((each == (77, 88, 99)).all() for each in drawn)


def test_given_image_of_a_model_that_takes_none_is_refused(make: Make) -> None:
    with pytest.raises(BundleError, match="does not say how an image becomes its input"):
        report_bundle(
            make(preprocess=None), image=Image.new("RGB", (32, 32)), groups_LBT=np.zeros((3, 1, 17), np.int32)
        )


def test_pictures_that_end_elsewhere_than_the_schedule_are_explained(make: Make) -> None:
    groups = alike_groups(noise_image(32), Form())
    groups[2] = groups[1]  # the last merge is not executed

    section = taken_apart(report_bundle(make(merges=groups)).markdown).sections["What was merged"]

    assert "The schedule ends at 7 tokens, the pictures at 9 tokens" in section


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"not an archive", "merges.npz: cannot be read", id="text"),
        pytest.param(b"PK\x03\x04 cut off", "merges.npz: cannot be read", id="cut off"),
        pytest.param(None, "expected the arrays groups_LBT, got other", id="other array"),
    ],
)
def test_damaged_groups_are_refused_by_name(make: Make, content: bytes | None, message: str) -> None:
    bundle = make(merges=alike_groups(noise_image(32), Form()))
    np.savez(bundle.path / "merges.npz", other=np.zeros(1))
    if content is not None:
        (bundle.path / "merges.npz").write_bytes(content)

    with pytest.raises(BundleError, match=message):
        report_bundle(bundle)
