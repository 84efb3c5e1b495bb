"""The package as a file: a zip archive with one shared library, its weights and its metadata.

Read and rewritten without loading any of it.
"""

import json
import zipfile
from collections.abc import Iterable
from pathlib import Path

from exporter.errors import BundleError

_LIBRARY_FOLDER = "data/aotinductor/model/"
_METADATA = "wrapper_metadata.json"
_SOURCES = (".cpp", "kernel_metadata.json")
_NAMED_AFTER = ".wrapper.cpp"
"""What PyTorch 2.11 finds the metadata by: the name has to be there, the source need not."""

_EPOCH = (1980, 1, 1, 0, 0, 0)


def read_metadata(path: Path) -> dict[str, str]:
    """What the package says about itself: AOTInductor's own keys and those of the export.

    Raises:
        BundleError: it is missing, damaged, or not a package.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(_METADATA)]
            if len(names) != 1:
                raise BundleError(f"{path.name}: expected an AOTInductor package, found no {_METADATA} in it")
            found = json.loads(archive.read(names[0]))
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise BundleError(f"{path.name}: expected an AOTInductor package, cannot read it: {error}") from error
    return {str(key): str(value) for key, value in found.items()}


def repack(source: Path, target: Path, private: Iterable[str]) -> None:
    """Write a package again without the C++ that it was compiled from, and without this machine's paths.

    The code's own error messages name the files that it came from. Each path in `private` is overwritten where it
    stands, with as many dots, so that nothing in the library moves.

    Args:
        source: as AOTInductor wrote it.
        target: to write.
        private: paths that others should not read.
    """
    hidden = [path.encode() for path in sorted(private, key=len, reverse=True)]
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for entry in sorted(old.infolist(), key=lambda each: each.filename):
            if entry.filename.endswith(_SOURCES) and not entry.filename.endswith(_NAMED_AFTER):
                continue
            content = b"" if entry.filename.endswith(_NAMED_AFTER) else old.read(entry)
            for path in hidden if _LIBRARY_FOLDER in entry.filename else []:
                content = content.replace(path, b"." * len(path))
            new.writestr(zipfile.ZipInfo(entry.filename, _EPOCH), content)
