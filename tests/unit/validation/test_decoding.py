"""Every image is decoded once, in order, by whatever number of processes; what cannot be read is named."""

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import warnings
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from exporter.errors import InternalError, UsageError
from exporter.models import Preprocess, crop_image
from exporter.validation.decoding import DecodedChunk, decode, default_workers
from exporter.validation.image_set import ImageSet, image_arrays
from exporter.validation.images import image_folder
from tests.support.odd_images import FILES, HUGE, encoded, file_bytes
from tests.support.processes import still_running

PREPROCESS = Preprocess(
    image_size=(16, 16), interpolation="bicubic", crop_fraction=0.9, mean=(0.5,) * 3, std=(0.5,) * 3
)
AS_THEY_ARE = Preprocess(
    image_size=(1, 1), interpolation="bicubic", crop_fraction=1.0, mean=(0.0,) * 3, std=(1.0,) * 3
)


def numbered(count: int) -> ImageSet:
    """Return images of one pixel, whose red is their position."""
    pixels_BHWC = np.zeros((count, 1, 1, 3), np.uint8)
    pixels_BHWC[:, 0, 0, 0] = np.arange(count)
    return image_arrays(pixels_BHWC, None, "numbers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real and odd images, and eight files that are broken."""
    place = tmp_path_factory.mktemp("photos")
    for name in FILES:
        if name != HUGE:
            (place / f"{name}.png").write_bytes(file_bytes(name))
    jpeg, png = file_bytes("photo of a temple"), file_bytes("odd sides")
    for name, data in {
        "broken empty": b"",
        "broken text": b"hello",
        "broken header": jpeg[:20],
        "broken half": jpeg[: len(jpeg) // 2],
        "broken png": png[: len(png) // 2],
        "broken middle": png[:5000] + bytes(2000) + png[7000:],
        "broken bomb": bomb(),
    }.items():
        (place / f"{name}.jpg").write_bytes(data)
    (place / "broken link.jpg").symlink_to(place / "nowhere.jpg")
    return place


def bomb() -> bytes:
    """Return a PNG that says it has 400 megapixels."""
    small = bytearray(encoded(Image.new("L", (1, 1)), "PNG"))
    small[16:24] = (20000).to_bytes(4, "big") * 2
    small[29:33] = zlib.crc32(bytes(small[12:29])).to_bytes(4, "big")
    return bytes(small)


def decoded(images: ImageSet, workers: int, preprocess: Preprocess = PREPROCESS) -> list[DecodedChunk]:
    backwards = range(len(images.names))[::-1]
    return list(decode(images, preprocess, positions=backwards, chunk=5, workers=workers))


@given(count=st.integers(0, 40), chunk=st.integers(1, 50), start=st.integers(0, 40))
@settings(max_examples=60, deadline=None)
def test_chunks_cover_the_positions_once_and_in_order(count: int, chunk: int, start: int) -> None:
    wanted = list(range(count))[start:]
    chunks = list(decode(numbered(count), AS_THEY_ARE, positions=wanted, chunk=chunk, workers=0))
    assert [position for each in chunks for position in each.positions] == wanted
    assert [red for each in chunks for red in each.pixels_BCHW[:, 0, 0, 0].tolist()] == wanted
    assert [len(each.positions) for each in chunks[:-1]] == [chunk] * (len(chunks) - 1)
    assert all(each.pixels_BCHW.shape == (len(each.positions), 3, 1, 1) for each in chunks)


def test_positions_are_taken_as_they_are_given() -> None:
    chunks = list(decode(numbered(9), AS_THEY_ARE, positions=[7, 2, 8], chunk=2, workers=0))
    assert [each.positions for each in chunks] == [(7, 2), (8,)]
    assert [each.pixels_BCHW[:, 0, 0, 0].tolist() for each in chunks] == [[7, 2], [8]]


def test_pixels_are_those_of_the_models_own_preprocessing(folder: Path) -> None:
    images = image_folder(folder, None)
    for chunk in decoded(images, workers=0):
        for position, pixels_CHW in zip(chunk.positions, chunk.pixels_BCHW, strict=True):
            with warnings.catch_warnings(), Image.open(folder / images.names[position]) as image:
                warnings.simplefilter("ignore")
                np.testing.assert_array_equal(pixels_CHW, crop_image(image, PREPROCESS))


def test_broken_images_are_named_with_the_reason_and_left_out(folder: Path) -> None:
    images = image_folder(folder, None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chunks = decoded(images, workers=0)
    reasons = {each.name: each.reason for chunk in chunks for each in chunk.unreadable}
    assert sorted(reasons) == sorted(name for name in images.names if name.startswith("broken"))
    assert reasons["broken text.jpg"] == "not an image of a known format"
    assert reasons["broken link.jpg"] == "No such file or directory"
    assert "truncated" in reasons["broken half.jpg"]
    assert "exceeds limit" in reasons["broken bomb.jpg"]
    assert all(0 < len(reason) <= 120 and str(folder) not in reason for reason in reasons.values())
    read = [position for chunk in chunks for position in chunk.positions]
    assert [images.names[position].startswith("broken") for position in read] == [False] * (len(FILES) - 1)


def test_workers_give_the_same_bytes_as_one_process(folder: Path) -> None:
    images = image_folder(folder, None)
    preprocess = replace(PREPROCESS, kernel="torch")
    alone, together = decoded(images, 0, preprocess), decoded(images, 2, preprocess)
    assert [each.positions for each in together] == [each.positions for each in alone]
    assert [each.unreadable for each in together] == [each.unreadable for each in alone]
    for one, other in zip(alone, together, strict=True):
        assert one.pixels_BCHW.tobytes() == other.pixels_BCHW.tobytes()


def test_a_strip_that_would_be_resized_to_gigabytes_is_left_out(tmp_path: Path) -> None:
    Image.new("L", (60_000, 1)).save(tmp_path / "strip.png")
    covering = Preprocess(
        image_size=(224, 224), interpolation="bicubic", crop_fraction=1.0, mean=(0.0,) * 3, std=(1.0,) * 3
    )
    (chunk,) = decode(image_folder(tmp_path, None), covering, positions=[0], chunk=4, workers=0)
    assert chunk.positions == ()
    assert chunk.pixels_BCHW.shape == (0, 3, 224, 224)
    assert "60000x1 pixels would be resized to 13440000x224" in chunk.unreadable[0].reason


def test_decoding_draws_nothing_from_the_global_generator() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    list(decode(numbered(3), AS_THEY_ARE, positions=[0, 1, 2], chunk=2, workers=0))
    assert torch.equal(torch.rand(1), expected)


def test_decoding_gives_the_threads_back() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for _ in decode(numbered(3), AS_THEY_ARE, positions=[0, 1, 2], chunk=2, workers=0):
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_an_iterator_that_is_closed_leaves_no_process() -> None:
    before = set(multiprocessing.active_children())
    chunks = decode(numbered(200), AS_THEY_ARE, positions=range(200), chunk=1, workers=1)
    next(chunks)
    running = set(multiprocessing.active_children()) - before
    assert len(running) == 1
    chunks.close()  # type: ignore[attr-defined]
    assert not set(multiprocessing.active_children()) & running


def test_a_killed_worker_is_one_line() -> None:
    before = set(multiprocessing.active_children())
    chunks = decode(numbered(200), AS_THEY_ARE, positions=range(200), chunk=1, workers=1)
    next(chunks)
    (worker,) = set(multiprocessing.active_children()) - before
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(UsageError, match="a process that decodes images was killed.* use fewer workers"):
        list(chunks)


INTERRUPTED = """
import multiprocessing, sys, time
import numpy as np
from exporter.models import Preprocess
from exporter.validation.decoding import decode
from exporter.validation.image_set import image_arrays

plain = Preprocess(image_size=(1, 1), interpolation="bicubic", crop_fraction=1.0, mean=(0,) * 3, std=(1,) * 3)
images = image_arrays(np.zeros((500, 1, 1, 3), np.uint8), None, "black")
for chunk in decode(images, plain, positions=range(500), chunk=1, workers=2):
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    time.sleep(60)
"""


def test_ctrl_c_ends_the_workers_and_prints_nothing_from_them() -> None:
    root = Path(__file__).resolve().parents[3]
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    workers = [int(word) for word in process.stdout.readline().split()]
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, complaints = process.communicate(timeout=60)
    assert len(workers) == 2
    assert complaints.count("Traceback") == 1
    assert still_running(workers) == []


@pytest.mark.parametrize(("chunk", "workers"), [(0, 0), (1, -1)])
def test_impossible_numbers_are_our_mistake(chunk: int, workers: int) -> None:
    with pytest.raises(InternalError):
        list(decode(numbered(1), AS_THEY_ARE, positions=[0], chunk=chunk, workers=workers))


def test_small_sets_are_decoded_in_one_process() -> None:
    assert default_workers(0) == default_workers(100) == 0
    assert 1 <= default_workers(50_000) <= len(os.sched_getaffinity(0))


class Doomed:
    """Notes down which process destroyed it; part of a circle, as an engine's session is that nobody holds any more."""

    def __init__(self, path: Path) -> None:
        self.path, self.me = path, self

    def __del__(self) -> None:
        with self.path.open("a", encoding="ascii") as file:
            file.write(f"{os.getpid()}\n")


def collect_and_open(position: int) -> Image.Image:
    """Open an image behind a garbage collection, which may happen in a worker at any time."""
    gc.collect()
    return Image.new("RGB", (1, 1))


def test_workers_destroy_nothing_of_their_parent(tmp_path: Path) -> None:
    images = ImageSet(
        name="one", names=("a",), labels=None, open=collect_and_open, bytes_per_pixel=float, fingerprint=""
    )
    gc.disable()
    try:
        Doomed(tmp_path / "processes")
        list(decode(images, AS_THEY_ARE, positions=[0], chunk=1, workers=1))
    finally:
        gc.enable()
    gc.collect()

    assert (tmp_path / "processes").read_text(encoding="ascii").split() == [str(os.getpid())]
