"""Arrays of others are known by name, type, shape and size before anything is allocated; all else is status 8."""

import io
import struct
import tracemalloc
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporter.arrays import ArrayForm, read_archive, read_array
from exporter.errors import BundleError, quoted

FORMS = {
    "images": ArrayForm(dtype="float32", shape=("batch", 3, 4, 4)),
    "logits": ArrayForm(dtype="float32", shape=("batch", 10)),
}
SOUND: dict[str, Any] = {
    "images": np.arange(96, dtype=np.float32).reshape(2, 3, 4, 4),
    "logits": np.ones((2, 10), np.float32),
}

Zipped = Callable[[], bytes]


def npy(array: Any, **options: Any) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asanyarray(array), **options)
    return stream.getvalue()


def header(text: str, content: bytes = b"") -> bytes:
    """An `.npy` file with a header of one's own."""
    line = text.encode("latin1") + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(line)) + line + content


def zipped(files: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def archive(**changed: Any) -> bytes:
    """The sound archive, with some arrays replaced by others, or by bytes."""
    arrays = SOUND | changed
    return zipped(
        {f"{name}.npy": each if isinstance(each, bytes) else npy(each) for name, each in arrays.items()}
    )


def patched(old: bytes, new: bytes) -> bytes:
    """The sound archive with every occurrence of some bytes changed, in its directory and before each entry."""
    content = archive()
    assert old in content
    return content.replace(old, new)


def flagged(place: int, value: int) -> bytes:
    """The sound archive with a 16-bit field of every entry changed: so many bytes after its version."""
    content = bytearray(archive())
    for signature, offset in ((b"PK\x03\x04", 4), (b"PK\x01\x02", 6)):
        start = content.find(signature)
        while start >= 0:
            struct.pack_into("<H", content, start + offset + place, value)
            start = content.find(signature, start + 4)
    return bytes(content)


def read(tmp_path: Path, content: bytes) -> dict[str, Any]:
    (tmp_path / "sample.npz").write_bytes(content)
    return read_archive(tmp_path / "sample.npz", FORMS, "export the bundle again")


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(archive(), id="stored"),
        pytest.param(
            zipped({f"{name}.npy": npy(each) for name, each in SOUND.items()}, zipfile.ZIP_DEFLATED),
            id="deflated",
        ),
        pytest.param(archive(images=npy(SOUND["images"], version=(2, 0))), id="format 2.0"),
        pytest.param(archive(images=np.asfortranarray(SOUND["images"])), id="column order"),
    ],
)
def test_sound_archive_is_read(tmp_path: Path, content: bytes) -> None:
    arrays = read(tmp_path, content)
    assert list(arrays) == ["images", "logits"]
    for name, expected in SOUND.items():
        np.testing.assert_array_equal(arrays[name], expected)
        assert arrays[name].dtype == expected.dtype
    arrays["images"][0] = 0  # may be written to


HUGE = "{'descr': '<f4', 'fortran_order': False, 'shape': (%s, 3, 4, 4), }"
DAMAGED = [
    pytest.param(b"", "cannot be read", id="empty"),
    pytest.param(b"not an archive", "cannot be read", id="no archive"),
    pytest.param(archive()[:-30], "cannot be read", id="directory cut off"),
    pytest.param(archive()[200:], "cannot be read", id="start cut off"),
    pytest.param(npy(SOUND["images"]), "cannot be read", id="plain npy"),
    pytest.param(patched(np.float32(77).tobytes(), np.float32(78).tobytes()), "Bad CRC-32", id="checksum"),
    pytest.param(flagged(2, 1), "encrypted", id="encrypted"),
    pytest.param(flagged(4, 12), "compression 12", id="bzip2"),
    pytest.param(flagged(4, 99), "compression 99", id="unknown compression"),
    pytest.param(archive(other=np.ones(1)), "got images, logits, other", id="one too many"),
    pytest.param(zipped({"images.npy": npy(SOUND["images"])}), "got images", id="one too few"),
    pytest.param(zipped({"images": b"", "logits": b""}), "expected an array images.npy", id="no arrays"),
    pytest.param(archive(images=b"\x89PNG"), "cannot be read", id="no npy inside"),
    pytest.param(archive(images=npy(SOUND["images"], version=(3, 0))), "numpy format", id="format 3.0"),
    pytest.param(archive(images=npy(SOUND["images"])[:-4]), "expected 384 bytes", id="short"),
    pytest.param(archive(images=npy(SOUND["images"]) + b"more"), "expected 384 bytes", id="long"),
    pytest.param(archive(images=np.zeros((0, 3, 4, 4), np.float32)), r"shape \(0, 3, 4, 4\)", id="no rows"),
    pytest.param(archive(images=np.zeros((2, 3, 4), np.float32)), r"shape \(2, 3, 4\)", id="rank"),
    pytest.param(archive(images=np.zeros((2, 1, 4, 4), np.float32)), r"shape \(2, 1, 4, 4\)", id="channels"),
    pytest.param(archive(images=np.float32(1)), r"of shape \(\)", id="scalar"),
    pytest.param(archive(images=SOUND["images"].astype(np.float64)), "got float64", id="double"),
    pytest.param(archive(images=SOUND["images"].astype(">f4")), "another byte order", id="byte order"),
    pytest.param(archive(images=SOUND["images"].astype(np.complex64)), "got complex64", id="complex"),
    pytest.param(archive(images=np.full((2, 3, 4, 4), b"x")), "got bytes8", id="bytes"),
    pytest.param(archive(images=np.full((2, 3, 4, 4), "x")), "got str32", id="text"),
    pytest.param(archive(images=np.zeros((2, 3, 4, 4), "datetime64[s]")), "got datetime64", id="dates"),
    pytest.param(archive(images=np.zeros((2, 3, 4, 4), [("a", "<f4")])), "got void32", id="structure"),
    pytest.param(archive(images=header(HUGE.replace("<f4", "|O") % 2)), "got object", id="objects"),
    pytest.param(
        archive(images=header(HUGE % 8589934592)), "at most 8589934592 bytes", id="elements claimed"
    ),
    pytest.param(archive(images=header(HUGE % 10**30)), "at most 8589934592 bytes", id="more than memory"),
    pytest.param(archive(images=header(HUGE % -1)), r"shape \(-1, 3, 4, 4\)", id="negative"),
    pytest.param(archive(images=header(HUGE % ("9" * 5000))), "cannot be read", id="endless number"),
    pytest.param(archive(images=header("(" * 5000)), "cannot be read", id="nested header"),
    pytest.param(archive(images=header("{'descr': 3}")), "cannot be read", id="header without keys"),
    pytest.param(archive(images=header("x" * 40000)), "cannot be read", id="long header"),
]


@pytest.mark.parametrize(("content", "message"), DAMAGED)
def test_damaged_archive_is_refused_in_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(BundleError, match=message) as caught:
        read(tmp_path, content)
    assert str(caught.value).startswith(quoted(f"{tmp_path / 'sample.npz'}:"))
    assert str(caught.value).endswith("; export the bundle again")
    assert len(str(caught.value)) < len(str(tmp_path)) + 300


def test_what_is_only_claimed_is_not_allocated(tmp_path: Path) -> None:
    content = archive(images=header(HUGE % 40_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(BundleError):
            read(tmp_path, content)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_doubled_entries_are_refused(tmp_path: Path) -> None:
    stream = io.BytesIO(archive())
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(stream, "a") as doubled:
        doubled.writestr("images.npy", npy(SOUND["images"]))
    with pytest.raises(BundleError, match="expected the arrays images, logits"):
        read(tmp_path, stream.getvalue())


def test_compressed_zeros_are_not_unpacked_without_end(tmp_path: Path) -> None:
    zeros = header(HUGE % 600_000, bytes(64))
    content = bytearray(
        zipped({"images.npy": zeros, "logits.npy": npy(SOUND["logits"])}, zipfile.ZIP_DEFLATED)
    )
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", content, content.find(signature) + offset, 1 << 29)
    with pytest.raises(BundleError, match="at most 268435456 bytes compressed"):
        read(tmp_path, bytes(content))


@pytest.mark.parametrize("cut", [0, 5, 40, 100, -1])
def test_single_array_is_read_by_the_same_rules(tmp_path: Path, cut: int) -> None:
    form = ArrayForm(dtype="numbers", shape=None)
    (tmp_path / "a.npy").write_bytes(npy(SOUND["logits"]))
    np.testing.assert_array_equal(read_array(tmp_path / "a.npy", form, "write it again"), SOUND["logits"])
    (tmp_path / "a.npy").write_bytes(npy(SOUND["logits"])[:cut])
    with pytest.raises(BundleError, match=r"a\.npy: .*; write it again"):
        read_array(tmp_path / "a.npy", form, "write it again")
