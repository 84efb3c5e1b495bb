"""What lies in a bundle's folder and is not the bundle's: a README, `.git`, `.DS_Store`, caches of tools.

`load` names these files in a note and never reads them; `write` takes them along when a bundle is replaced or added
to, so that no file of the user's is ever lost.
"""

import json
import os
import re
import shutil
import stat
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

from exporter.bundle.file_names import MANIFEST_FILE, is_file_name
from exporter.bundle.manifest import MAX_MANIFEST_BYTES
from exporter.errors import UsageError, first_few, quoted

_NAMED = 5
"""How many extra files a note names."""


def extra_names(folder: Path, names: Collection[str]) -> tuple[str, ...]:
    """What else lies in a bundle's folder; a folder without any of the bundle's files is one name, `.git/`.

    Links are not followed, and nothing is opened but the folders that the bundle's own files lie in.

    Args:
        folder: the bundle's.
        names: of its files, as the manifest lists them.

    Raises:
        OSError: a folder of the bundle cannot be listed.
    """
    own = {MANIFEST_FILE, *names}
    folders = {str(parent) for name in own for parent in PurePosixPath(name).parents}
    return tuple(_extras(folder, "", own, folders))


def extras_note(extras: Collection[str]) -> str | None:
    """The line that names them, or None where there are none."""
    if not extras:
        return None
    return f"not of this bundle, and neither checked nor read: {first_few(sorted(extras), most=_NAMED)}"


def extras_to_keep(folder: Path) -> tuple[str, ...]:
    """What has to be taken along when the bundle at a place is replaced.

    Args:
        folder: a bundle that may be damaged, or an empty folder.

    Raises:
        UsageError: it is neither, or there is more than can be taken along.
    """
    try:
        if not any(folder.iterdir()):
            return ()
        extras = extra_names(folder, _listed(folder / MANIFEST_FILE))
    except FileNotFoundError:
        raise _neither(folder) from None
    except OSError as error:
        raise UsageError(
            f"{folder}: cannot be replaced: {error.strerror or error}; remove it yourself, or give another --out"
        ) from None
    except (ValueError, RecursionError):
        raise _neither(folder) from None
    if mounted := [name for name in extras if os.path.ismount(folder / name)]:
        raise UsageError(
            f"{folder}: cannot be replaced: another file system is mounted at {quoted(mounted[0])}"
        )
    return extras


def _neither(folder: Path) -> UsageError:
    return UsageError(
        f"{folder}: --force replaces only a bundle or an empty folder, and this is neither; "
        "give another --out or remove it yourself"
    )


def refuse_clash(extras: Collection[str], names: Collection[str], folder: Path) -> None:
    """Raise a UsageError if one of the user's files has a name that the bundle is about to write."""
    if clash := sorted(set(extras) & set(names)):
        raise UsageError(
            f"{folder}: {quoted(clash[0])} is not of the bundle that lies there and would be replaced; "
            "move it elsewhere"
        )


def carry(extras: Collection[str], folder: Path, staging: Path) -> None:
    """Take the user's files along into the folder that is about to take the bundle's place: the same files, by links.

    They stay in the old folder as well, so that whatever happens in between loses nothing.

    Raises:
        UsageError: one of them has a name of the new bundle, or cannot be linked or copied.
    """
    refuse_clash(extras, [name for name in extras if os.path.lexists(staging / name)], folder)
    for name in extras:
        try:
            _carry(folder / name, staging / name)
        except OSError as error:
            raise UsageError(
                f"{folder}: {quoted(name)} is not of the bundle and cannot be taken along: "
                f"{error.strerror or error}; move it elsewhere"
            ) from None


def link_file(source: Path, target: Path) -> None:
    """Have a file, a link or anything else that is no folder at a second place as well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # a file system without hard links
        if not stat.S_ISREG(source.lstat().st_mode) and not source.is_symlink():
            raise
        shutil.copy2(source, target, follow_symlinks=False)


def _carry(source: Path, target: Path) -> None:
    if source.is_symlink() or not source.is_dir():
        link_file(source, target)
        return
    target.mkdir(parents=True)
    for entry in os.scandir(source):
        _carry(source / entry.name, target / entry.name)
    shutil.copystat(source, target)


def _listed(manifest: Path) -> list[str]:
    """The names that a bundle's manifest lists, whether or not it is sound otherwise.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not a bundle's; many programs call a file of theirs so.
    """
    if not manifest.is_file():
        raise ValueError("no file")
    with manifest.open("rb") as stream:
        tree = json.loads(stream.read(MAX_MANIFEST_BYTES))
    if not isinstance(tree, dict) or type(tree.get("schema_version")) is not int:
        raise ValueError("no version")
    files = tree.get("files")
    if not isinstance(tree.get("digest"), str) or not isinstance(files, dict):
        raise ValueError("no digest, or no files")
    are_hashes = all(isinstance(each, str) and re.fullmatch("[0-9a-f]{64}", each) for each in files.values())
    if not are_hashes or not all(map(is_file_name, files)):
        raise ValueError("other files than a bundle's")
    return list(files)


def _extras(folder: Path, prefix: str, own: set[str], folders: set[str]) -> Iterator[str]:
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        name = prefix + entry.name
        if name in folders and entry.is_dir():
            if not entry.is_symlink():  # what lies at another place is not in this folder
                yield from _extras(Path(entry.path), f"{name}/", own, folders)
        elif entry.is_dir(follow_symlinks=False):
            yield f"{name}/"
        elif name not in own:
            yield name
