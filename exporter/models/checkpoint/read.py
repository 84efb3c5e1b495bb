"""Read a file of weights, whatever wrote it, into one flat state dict of fp32 tensors; nothing in it is ever run.

In: the path that the user gave; out: a `Checkpoint`, which `weights` puts into a module.
What a file is, is told by its first bytes, not by its name: safetensors, an archive or a pickle of `torch.save` (read
with `weights_only=True`), or an index of shards. Everything else is refused by the name of what it is.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from exporter.errors import WeightsError, first_few, nearest, quoted
from exporter.models.checkpoint.claim import unclaimed
from exporter.models.checkpoint.content import flat_state_dict, strip_prefix
from exporter.models.checkpoint.pickled import read_pickle, read_zip
from exporter.models.json_file import LFS_ADVICE, LFS_POINTER, read_json

SUFFIXES = ".safetensors, .pth, .pt, .bin, .ckpt or .tar"

_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.\w+)")
_HEAD_BYTES = 1024

# First bytes of files that hold no state dict of torch, and what to say about them.
_OTHER_FILES: tuple[tuple[bytes, str], ...] = (
    (LFS_POINTER, LFS_ADVICE),
    (b"\x89HDF", "is an HDF5 file (Keras): expected weights of PyTorch"),
    (b"GGUF", "is a GGUF file: expected weights of PyTorch"),
    (b"\x1f\x8b", "is compressed (gzip): unpack it first"),
)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The weights of one file, or of the shards of one.

    Attributes:
        path: The file that was asked for.
        state: Names to fp32 tensors; tensors of integers and booleans as they are.
        notes: Which wrapper and prefix were taken off, and what else is in the file.
    """

    path: Path
    state: dict[str, torch.Tensor]
    notes: tuple[str, ...] = ()

    def fitted_to(self, expected: Mapping[str, Any]) -> "Checkpoint":
        """The same weights without the prefix that a training wrapper put before the model's own names.

        Args:
            expected: The model's state dict; only its names are read.

        Raises:
            WeightsError: Most names have such a prefix, and some have not.
        """
        state, note = strip_prefix(self.state, expected.keys(), self.path)
        return replace(self, state=state, notes=(*self.notes, note)) if note else self


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a file of weights, without what is claimed (`claim.claiming`).

    A file is a state dict, or a dictionary that holds one under a usual key (`content.WRAPPERS`).

    Args:
        path: safetensors, what `torch.save` wrote, an index of shards, or one of the shards.

    Raises:
        WeightsError: There is no such file, it is something else, it is damaged or incomplete, or it holds objects
            that only run when they are loaded, an adapter, or quantised weights.
    """
    _check_file(path)
    parts = _shards(path)
    content: Any = {}
    for part in parts:
        content = _read_one(part) if len(parts) == 1 else content | _mapping(_read_one(part), part)
    state, notes = flat_state_dict(content, path)
    if len(parts) > 1:
        notes = (f"weights are in {len(parts)} shards", *notes)
    for name, tensor in state.items():
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            state[name] = tensor.float()
    return Checkpoint(path=path, state=unclaimed(state), notes=notes)


def _check_file(path: Path) -> None:
    if path.is_file():
        return
    kind = "is a folder" if path.is_dir() else "does not exist"
    hint = nearest(str(path), ("pretrained", "random"))
    raise WeightsError(
        f'weights file "{path}" {kind}: expected pretrained, random or a {SUFFIXES} file.{hint}'
    )


def check_readable(path: Path) -> None:
    """Refuse a file of weights that is not the one that it is called, or whose shards are not all there.

    Raises:
        WeightsError: It is so, by the first bytes of each file; no tensor is read.
    """
    for part in _shards(path):
        _head(part)


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise WeightsError(f'weights file "{path}" cannot be read ({error.strerror})') from error
    if complaint := _complaint(head):
        raise WeightsError(f'weights file "{path}" {complaint}')
    return head


def _read_one(path: Path) -> Any:
    """What one file holds: tensors by name, perhaps wrapped in further dictionaries."""
    head = _head(path)
    if head.startswith(b"PK"):
        return read_zip(path)
    if head.startswith(b"\x80") and not _is_safetensors(head):
        return read_pickle(path)
    return _read_safetensors(path)


def _complaint(head: bytes) -> str | None:
    """What to say about a file that is no state dict at all, told by its first bytes."""
    if not head:
        return "is damaged: it is empty (0 bytes); fetch it again"
    if _is_safetensors(head):
        return None
    for magic, complaint in _OTHER_FILES:
        if head.startswith(magic):
            return complaint
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "is a web page: the download gave a page instead of the file; fetch it again"
    if text.startswith((b"{", b"[")):
        return "is JSON text, not weights: give the file of tensors beside it"
    return None


def _is_safetensors(head: bytes) -> bool:
    """Eight bytes of length, then a JSON object."""
    return len(head) > 8 and head[8:9] == b"{"


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, AttributeError) as error:
        reason = quoted(str(error).splitlines()[0], 120) if str(error) else type(error).__name__
        raise WeightsError(
            f'weights file "{path}" is not a safetensors state dict, or is damaged ({reason}); '
            "save it with safetensors.torch.save_file, or fetch it again"
        ) from error


def _shards(path: Path) -> list[Path]:
    """Every file that belongs to the one asked for: the shards of an index or of a numbered name, or itself."""
    if path.name.endswith(".index.json"):
        names = _index(path)
    elif match := _SHARD.fullmatch(path.name):
        count = match["count"]
        names = [
            f"{match['stem']}-{number:05d}-of-{count}{match['suffix']}" for number in range(1, int(count) + 1)
        ]
    else:
        return [path]
    missing = [name for name in names if not (path.parent / name).is_file()]
    if missing:
        raise WeightsError(
            f'weights file "{path}" belongs to {len(names)} files, of which {len(missing)} are missing: '
            f"{first_few(missing)}; fetch all of them"
        )
    return [path.parent / name for name in names]


def _index(path: Path) -> list[str]:
    what = f'index of shards "{path}"'
    weight_map = read_json(path, what, WeightsError).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise WeightsError(f'{what} has no "weight_map"; fetch it again')
    if not all(isinstance(name, str) and name == Path(name).name != "" for name in weight_map.values()):
        raise WeightsError(f"{what} names files outside of its folder: expected plain file names")
    return sorted(set(weight_map.values()))


def _mapping(content: Any, path: Path) -> dict[Any, Any]:
    if not isinstance(content, Mapping):
        raise WeightsError(
            f'weights file "{path}" holds a {type(content).__name__}: expected tensors by name'
        )
    return dict(content)
