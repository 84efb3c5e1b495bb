"""The one reader of arrays that others wrote: `.npz` archives and `.npy` files, known before anything is allocated.

Below every room. In: a file, and what it has to hold. Out: arrays. Names, types, shapes and sizes are read from the
archive's directory and the arrays' headers and compared with what is expected; only then is the content read. Nothing
is unpickled.
"""

import math
import os
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from exporter.errors import BundleError, first_few

Array = npt.NDArray[Any]

_MOST_BYTES = 1 << 33
_MOST_INFLATED = 1 << 28
"""Of an array that is stored as it is, whose bytes are in the file, and of one that is compressed."""
_KINDS = {"iu": "integers", "fiu": "numbers"}
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


@dataclass(frozen=True, kw_only=True)
class ArrayForm:
    """What an array has to be.

    Attributes:
        dtype: name of its type, such as `float32`, or `integers` or `numbers` for any of these.
        shape: lengths; a word, such as `batch`, stands for any length from 1, and `...` at the end
            for any further axes. None is any shape that is not empty.
    """

    dtype: str
    shape: tuple[int | str, ...] | None

    def __str__(self) -> str:
        if self.shape is None:
            return f"{self.dtype} of any shape"
        return f"{self.dtype} of shape ({', '.join(map(str, self.shape))})"

    def fits(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> bool:
        """Whether an array of this type and shape is what is expected."""
        kinds = next((kinds for kinds, name in _KINDS.items() if name == self.dtype), None)
        typed = (
            dtype.kind in kinds if kinds is not None else dtype.kind in "fiub" and dtype.name == self.dtype
        )
        if not typed or not dtype.isnative or dtype.subdtype is not None or min(shape, default=1) < 1:
            return False
        if self.shape is None:
            return True
        is_open = self.shape[-1:] == ("...",)
        wanted = self.shape[:-1] if is_open else self.shape
        return (len(shape) >= len(wanted) if is_open else len(shape) == len(wanted)) and all(
            isinstance(want, str) or want == got for want, got in zip(wanted, shape, strict=False)
        )


def read_archive(path: Path, forms: Mapping[str, ArrayForm], remedy: str) -> dict[str, Array]:
    """The arrays of an `.npz` file, in the order of `forms`.

    Args:
        path: of the file.
        forms: by name: what the archive has to hold, no more and no less.
        remedy: how to get a sound file, for messages.

    Raises:
        BundleError: it is no such archive, or damaged, encrypted, or compressed in an unknown way; or an array is
            missing, unknown, or of another type, shape or size.
    """
    with _told(path, remedy), zipfile.ZipFile(path) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        found = sorted(name.removesuffix(".npy") for name in entries)
        if found != sorted(forms) or len(entries) != len(archive.infolist()):
            raise _Unfit(
                f"expected the arrays {', '.join(sorted(forms))}, got {first_few(found, 40, 5) or 'none'}"
            )
        return {name: _read_entry(archive, entries, name, form) for name, form in forms.items()}


def read_array(path: Path, form: ArrayForm, remedy: str) -> Array:
    """The array of an `.npy` file.

    Raises:
        BundleError: it is no such file, or damaged, or an array of another type, shape or size.
    """
    with _told(path, remedy), path.open("rb") as stream:
        return _read(stream, os.fstat(stream.fileno()).st_size, path.stem, form)


class _Unfit(Exception):
    """What is wrong with a file, without its name."""


@contextmanager
def _told(path: Path, remedy: str) -> Iterator[None]:
    """Turns whatever reading a damaged file raises into one line with the file's name."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy's, about headers that it can make out all the same
            yield
    except _Unfit as error:
        raise BundleError(f"{path}: {error}; {remedy}") from None
    except Exception as error:  # zipfile, zlib and numpy raise nearly anything on damaged files
        reason = str(error).splitlines()[0][:80] if str(error) else type(error).__name__
        raise BundleError(f"{path}: cannot be read as arrays: {reason}; {remedy}") from None


def _read_entry(
    archive: zipfile.ZipFile, entries: Mapping[str, zipfile.ZipInfo], name: str, form: ArrayForm
) -> Array:
    entry = entries.get(f"{name}.npy")
    if entry is None:
        raise _Unfit(f"{name}: expected an array {name}.npy, got a file {name}")
    if entry.flag_bits & 1:
        raise _Unfit(f"{name}: expected an array, got an encrypted entry")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _Unfit(f"{name}: expected an array stored or deflated, got compression {entry.compress_type}")
    if entry.compress_type != zipfile.ZIP_STORED and entry.file_size > _MOST_INFLATED:
        raise _Unfit(f"{name}: expected at most {_MOST_INFLATED} bytes compressed, got {entry.file_size}")
    with archive.open(entry) as stream:
        return _read(stream, entry.file_size, name, form)


def _read(stream: IO[bytes], size: int, name: str, form: ArrayForm) -> Array:
    """An array out of a stream that has `size` bytes; its checksum is compared where the stream ends."""
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise _Unfit(f"{name}: expected an array of numpy format 1.0 or 2.0, got {version[0]}.{version[1]}")
    shape, fortran, dtype = _HEADERS[version](stream)
    if not form.fits(dtype, shape):
        raise _Unfit(f"{name}: expected {form}, got {_type_text(dtype)} of shape {_shape_text(shape)}")
    count, header = math.prod(shape), stream.tell()
    needed = count * dtype.itemsize
    if needed > _MOST_BYTES:
        raise _Unfit(f"{name}: expected at most {_MOST_BYTES} bytes, got an array of {needed:.4g}")
    if size - header != needed:
        raise _Unfit(f"{name}: expected {needed} bytes for shape {_shape_text(shape)}, got {size - header}")
    content = bytearray(stream.read(needed))
    if len(content) != needed or stream.read(1):
        raise _Unfit(f"{name}: expected {needed} bytes, got {len(content)}")
    return np.frombuffer(content, dtype=dtype, count=count).reshape(shape, order="F" if fortran else "C")


def _type_text(dtype: np.dtype[Any]) -> str:
    return dtype.name[:40] if dtype.isnative else f"{dtype.name[:40]} of another byte order"


def _shape_text(shape: tuple[int, ...]) -> str:
    shown = ", ".join(str(length)[:20] for length in shape[:8])
    return f"({shown}{', ...' if len(shape) > 8 else ''})"
