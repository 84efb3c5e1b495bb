"""Add the results of `validate`, `bench` and `report` to a bundle: its engines stay, and it is sealed again.

The new bundle is staged beside the old one like any other, with links to the files that stay, so that an interruption
leaves the bundle as it was.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from exporter.bundle.extras import link_file, refuse_clash
from exporter.bundle.file_names import MANIFEST_FILE
from exporter.bundle.load import Bundle, read_manifest
from exporter.bundle.locks import place_locked
from exporter.bundle.manifest import Manifest
from exporter.bundle.write import check_out_dir, seal, stage_bundle
from exporter.errors import InternalError, UsageError

AMENDMENTS = ("bench.json", "report.html", "report.md", "validation.json")
"""What `validate`, `bench` and `report` add to a bundle."""


def amend(bundle: Bundle, files: Mapping[str, bytes]) -> Bundle:
    """The bundle with more files, or with newer ones of the same names; no engine can be replaced.

    Where the bundle's folder is a link, what it leads to is added to. Links to single files stay links.

    Args:
        bundle: as it was loaded, so that its files are known to be sound.
        files: content by name.

    Raises:
        UsageError: the bundle's folder cannot be written, or another command has replaced the bundle.
        InternalError: a file of that name is an artifact.
    """
    engines = {record.file for record in bundle.manifest.artifacts.values()} | {MANIFEST_FILE}
    if taken := sorted(engines & set(files)):
        raise InternalError(f"{taken[0]} cannot be amended")
    folder = bundle.path.resolve()
    with place_locked(folder):
        now = _as_it_is_now(bundle)
        with stage_bundle(folder, force=True) as staging:
            for name in now.files:
                if name not in files:
                    link_file(_where(folder, name), staging / name)
            for name, content in files.items():
                (staging / name).write_bytes(content)
            manifest = seal(
                staging, now, known={name: digest for name, digest in now.files.items() if name not in files}
            )
    return replace(bundle, manifest=manifest)


def _as_it_is_now(bundle: Bundle) -> Manifest:
    """The manifest on the disk, with what another command has added since the bundle was loaded.

    Raises:
        UsageError: it is another bundle by now, of which the new files say nothing.
    """
    now = read_manifest(bundle.path)
    made = [name for name in bundle.manifest.files if name not in AMENDMENTS]
    if now.artifacts != bundle.manifest.artifacts or any(
        now.files.get(name) != bundle.manifest.files[name] for name in made
    ):
        raise UsageError(f"{bundle.path}: was replaced by another command; run it again")
    return now


def check_amendable(bundle: Bundle) -> None:
    """Refuse a bundle that `amend` could not write to, or should not; cheap, for use before any measuring.

    Raises:
        UsageError: its folder, or the folder around it, is not writable; it is a part of another bundle, whose manifest
            would no longer hold; the shell stands in it and would find itself in a folder that is gone; or a file of
            the user's has the name of a measurement.
    """
    folder = bundle.path.resolve()
    check_out_dir(folder, force=True)
    refuse_clash(bundle.extras, AMENDMENTS, bundle.path)
    if (folder.parent / MANIFEST_FILE).is_file():
        raise UsageError(
            f"{bundle.path}: cannot be added to: it is a part of the bundle {folder.parent}; name that one, or give "
            "--no-save"
        )
    for place in (folder, folder.parent):
        if not os.access(place, os.W_OK | os.X_OK):
            raise UsageError(f"{bundle.path}: cannot be added to: {place} is not writable; give --no-save")


def _where(folder: Path, name: str) -> Path:
    """A file of the bundle; what a linked folder leads to, since that link would lead elsewhere from its new place."""
    file = folder / name
    return file if file.parent.resolve() == file.parent else file.resolve()
