"""Outputs of contenders over images: stored in order, never computed twice, whatever stops the run."""

from pathlib import Path

import numpy as np
import pytest

from exporter.errors import UsageError
from exporter.models import Preprocess
from exporter.targets import Array
from exporter.validation import ImageSet, collect, image_arrays, open_images
from exporter.validation.outputs import CHUNK
from tests.support.image_trees import Tree

PREPROCESS = Preprocess(
    image_size=(4, 4),
    interpolation="bicubic",
    crop_fraction=1.0,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
)
COUNT = 2 * CHUNK + 5


def images(count: int = COUNT) -> ImageSet:
    """Flat images whose grey level is their number."""
    grey_B = np.arange(count, dtype=np.uint8)
    pixels_BHWC = np.broadcast_to(grey_B[:, None, None, None], (count, 4, 4, 3)).copy()
    return image_arrays(pixels_BHWC, grey_B.astype(np.int64), name="greys")


class Greys:
    """A contender that answers with the grey level, and counts the images that it saw."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.seen = 0
        self._stop_after = stop_after

    def __call__(self, pixels_BCHW: Array) -> Array:
        """Return (B, 1)."""
        if self._stop_after is not None and self.seen >= self._stop_after:
            raise KeyboardInterrupt
        self.seen += len(pixels_BCHW)
        return pixels_BCHW[:, 0, 0, :1].astype(np.float64)


def test_outputs_come_back_in_the_order_of_the_images(tmp_path: Path) -> None:
    outputs = collect(images(), PREPROCESS, {"grey": Greys()}, tmp_path)

    assert outputs.stacked("grey")[:, 0].tolist() == list(range(COUNT))
    assert outputs.positions.tolist() == list(range(COUNT))
    assert [len(chunk) for chunk in outputs.of("grey")] == [CHUNK, CHUNK, 5]
    assert outputs.stacked("grey").dtype == np.float32
    assert outputs.labels is not None
    assert outputs.labels.tolist() == list(range(COUNT))


@pytest.mark.parametrize("stop_after", [0, 1, CHUNK, 2 * CHUNK])
def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path, stop_after: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        collect(images(), PREPROCESS, {"grey": Greys(stop_after=stop_after)}, tmp_path)
    again = Greys()

    outputs = collect(images(), PREPROCESS, {"grey": again}, tmp_path)

    kept = -(-stop_after // CHUNK) * CHUNK
    assert again.seen == COUNT - kept
    assert outputs.stacked("grey")[:, 0].tolist() == list(range(COUNT))


def test_a_finished_run_computes_nothing(tmp_path: Path) -> None:
    collect(images(), PREPROCESS, {"grey": Greys()}, tmp_path)
    again = Greys()

    outputs = collect(images(), PREPROCESS, {"grey": again}, tmp_path)

    assert again.seen == 0
    assert outputs.images_per_s == {}


def test_a_contender_that_is_new_runs_alone(tmp_path: Path) -> None:
    collect(images(), PREPROCESS, {"old": Greys()}, tmp_path)
    old, new = Greys(), Greys()

    outputs = collect(images(), PREPROCESS, {"old": old, "new": new}, tmp_path)

    assert (old.seen, new.seen) == (0, COUNT)
    assert outputs.images_per_s.keys() == {"new"}


def test_progress_counts_every_image_once(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []

    collect(images(), PREPROCESS, {"grey": Greys()}, tmp_path, progress=lambda *each: told.append(each))

    assert told == [(CHUNK, COUNT), (2 * CHUNK, COUNT), (COUNT, COUNT)]


def test_unreadable_images_are_named_and_left_out(tree: Tree, tmp_path: Path) -> None:
    folder = tree("0.png", "2.png")
    (folder / "1.png").write_bytes(b"not a picture")

    outputs = collect(open_images(folder, None), PREPROCESS, {"grey": Greys()}, tmp_path / "store")

    assert outputs.stacked("grey")[:, 0].tolist() == [0, 1]  # what `tree` paints them with
    assert outputs.positions.tolist() == [0, 2]
    assert [each.name for each in outputs.unreadable] == ["1.png"]


def test_a_set_without_one_readable_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(b"not a picture")

    with pytest.raises(UsageError, match=r"1 that cannot be read; the first: 1\.png"):
        collect(open_images(tmp_path, None), PREPROCESS, {"grey": Greys()}, tmp_path / "store")
