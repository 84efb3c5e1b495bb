"""Sets open what they list, can be sent away, and change their fingerprint with what is in them."""

import os
import pickle
import socket
from contextlib import chdir

import numpy as np
import pytest

from exporter.errors import InternalError
from exporter.models import Preprocess
from exporter.validation.decoding import decode
from exporter.validation.image_set import image_arrays
from exporter.validation.images import image_folder
from tests.support.image_trees import Tree, known, red_of

LOOK = Preprocess(
    image_size=(2, 2), interpolation="bilinear", crop_fraction=1.0, mean=(0.5,) * 3, std=(0.5,) * 3
)


def test_arrays_open_as_they_are() -> None:
    pixels_BHWC = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), dtype=np.uint8)
    images = image_arrays(pixels_BHWC, np.array([2, 0, 1]), "scans")
    assert images.names == ("scans[0]", "scans[1]", "scans[2]")
    assert images.labels == (2, 0, 1)
    np.testing.assert_array_equal(np.asarray(images.open(1)), pixels_BHWC[1])


@pytest.mark.parametrize(
    ("pixels", "labels"),
    [
        pytest.param(np.zeros((2, 4, 4, 3)), None, id="floats"),
        pytest.param(np.zeros((2, 3, 4, 4), np.uint8), None, id="channels first"),
        pytest.param(np.zeros((2, 4, 4, 3), np.uint8), [0], id="too few labels"),
    ],
)
def test_arrays_of_another_kind_are_our_mistake(pixels: np.ndarray, labels: list[int] | None) -> None:
    with pytest.raises(InternalError):
        image_arrays(pixels, labels, "scans")


def test_sets_can_be_sent_to_another_process(tree: Tree) -> None:
    images = image_folder(tree("0/a.png", "1/a.png"), known(2))
    arrays = image_arrays(np.full((1, 2, 2, 3), 7, np.uint8), None, "scans")
    assert red_of(pickle.loads(pickle.dumps(images))) == [0, 1]
    assert red_of(pickle.loads(pickle.dumps(arrays))) == [7]


def test_what_a_file_holds_decides_and_only_known_formats_are_tried(tree: Tree) -> None:
    folder = tree("a.jpg")  # a PNG inside
    (folder / "b.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n%%EndComments\n")
    images = image_folder(folder, None)
    assert images.open(0).format == "PNG"
    with pytest.raises(OSError, match="cannot identify"):
        images.open(1)


@pytest.mark.parametrize("kind", ["pipe", "device", "socket"])
def test_what_is_no_regular_file_is_not_waited_for(kind: str, tree: Tree) -> None:
    folder = tree("a.png")
    place = folder / "b.png"
    with socket.socket(socket.AF_UNIX) as server, chdir(folder):
        if kind == "pipe":
            os.mkfifo(place)
        elif kind == "device":
            place.symlink_to("/dev/zero")
        else:
            server.bind("b.png")
        images = image_folder(folder, None)
        (chunk,) = decode(images, LOOK, positions=(0, 1), chunk=2, workers=0)
    assert chunk.positions == (0,)
    assert [(each.name, each.reason) for each in chunk.unreadable] == [("b.png", "not a regular file")]


def test_the_fingerprint_changes_with_names_labels_and_contents_only(tree: Tree) -> None:
    folder = tree("0/a.png", "1/a.png")
    before = image_folder(folder, known(2)).fingerprint
    assert image_folder(folder, known(5)).fingerprint == before
    assert len(before) == 64

    (folder / "1").rename(folder / "2")
    renamed = image_folder(folder, known(5)).fingerprint
    (folder / "2").rename(folder / "1")
    other_labels = image_folder(folder, None).fingerprint
    os.utime(folder / "0" / "a.png", ns=(1, 1))
    touched = image_folder(folder, known(2)).fingerprint
    assert len({before, renamed, other_labels, touched}) == 4


def test_the_fingerprint_of_arrays_changes_with_pixels_and_labels() -> None:
    pixels = np.zeros((2, 2, 2, 3), np.uint8)
    before = image_arrays(pixels, [0, 1], "scans").fingerprint
    assert image_arrays(pixels.copy(), [0, 1], "scans").fingerprint == before
    changed = pixels.copy()
    changed[1, 1, 1, 2] = 1
    others = {
        image_arrays(changed, [0, 1], "scans").fingerprint,
        image_arrays(pixels, [1, 0], "scans").fingerprint,
        image_arrays(pixels, None, "scans").fingerprint,
    }
    assert len(others | {before}) == 4
