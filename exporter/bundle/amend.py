"""Add measurements to a bundle that is already there: its engines stay, the whole is sealed anew.

Where it stands on the road: after `validate`, `bench` and `report`, which find out more about a bundle than its export
did. The new bundle is staged beside the old one like any other, with links to the files that stay, so that an
interruption leaves the bundle as it was.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from exporter.bundle.load import Bundle
from exporter.bundle.manifest import MANIFEST_FILE
from exporter.bundle.write import check_out_dir, seal, stage_bundle
from exporter.errors import InternalError, UsageError


def amend(bundle: Bundle, files: Mapping[str, bytes]) -> Bundle:
    """The bundle with more files, or with newer ones of the same names; no engine can be replaced.

    Args:
        bundle: as it was loaded, so that its files are known to be sound.
        files: content by name.

    Raises:
        UsageError: the bundle's folder cannot be written.
        InternalError: a file of that name is an artifact.
    """
    engines = {record.file for record in bundle.manifest.artifacts.values()} | {MANIFEST_FILE}
    if taken := sorted(engines & set(files)):
        raise InternalError(f"{taken[0]} cannot be amended")
    with stage_bundle(bundle.path, force=True) as staging:
        for name in bundle.manifest.files:
            if name not in files:
                _link(bundle.path / name, staging / name)
        for name, content in files.items():
            (staging / name).write_bytes(content)
        manifest = seal(staging, bundle.manifest, known=_without(bundle.manifest.files, files))
    return Bundle(path=bundle.path, manifest=manifest)


def check_amendable(bundle: Bundle) -> None:
    """Refuse a bundle that `amend` could not write to, or should not; cheap, for use before any measuring.

    Raises:
        UsageError: its folder, or the folder around it, is not writable; it is a part of another bundle, whose manifest
            would no longer hold; or the shell stands in it and would find itself in a folder that is gone.
    """
    check_out_dir(bundle.path, force=True)
    folder = bundle.path.absolute()
    if (folder.parent / MANIFEST_FILE).is_file():
        raise UsageError(
            f"{bundle.path}: cannot be added to: it is a part of the bundle {folder.parent}; name that one, or give "
            "--no-save"
        )
    if Path.cwd().is_relative_to(folder.resolve()):
        raise UsageError(
            f"{bundle.path}: cannot be added to from inside of it; go one folder up, or give --no-save"
        )
    for place in (folder, folder.parent):
        if not os.access(place, os.W_OK | os.X_OK):
            raise UsageError(f"{bundle.path}: cannot be added to: {place} is not writable; give --no-save")


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)


def _without(files: Mapping[str, str], left_out: Mapping[str, bytes]) -> dict[str, str]:
    return {name: digest for name, digest in files.items() if name not in left_out}
