"""Read what `torch.save` wrote, with `weights_only=True` and nothing else; a refusal says what is in the file.

In: a file that `checkpoint` took for an archive or a pickle; out: the objects in it, of
which only tensors, plain containers and `argparse.Namespace` (the arguments that timm's training script keeps beside
the weights, and timm's own loader allows) are ever made.
"""

import argparse
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from exporter.errors import WeightsError, first_few

SAVE_STATE_DICT = (
    "where you trust it, load it and save only the weights: "
    'safetensors.torch.save_file(model.state_dict(), "model.safetensors")'
)

# Classes of modules: a file that holds them is a whole model, not a state dict.
_MODULES = (
    "torch.nn.modules.",
    "timm.models.",
    "timm.layers.",
    "torchvision.models.",
    "transformers.models.",
)

_REFUSED = re.compile(r"GLOBAL ([\w.]+)")


def read_zip(path: Path) -> Any:
    """Read an archive of `torch.save`.

    Raises:
        WeightsError: It is cut short or damaged, another kind of archive, or holds objects other than weights.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise WeightsError(
            f'weights file "{path}" is damaged: its archive is cut short or broken; fetch it again'
        ) from error
    if complaint := _other_archive(names):
        raise WeightsError(f'weights file "{path}" {complaint}')
    return _load(path, mmap=True)


def read_pickle(path: Path) -> Any:
    """Read a file of `torch.save` from before it wrote archives.

    Raises:
        WeightsError: It is damaged, no file of `torch.save`, or holds objects other than weights.
    """
    return _load(path, mmap=False)


def _other_archive(names: list[str]) -> str | None:
    """What to say about an archive that `torch.save` did not write, told by the names of its members."""
    members = {name.partition("/")[2] for name in names} | set(names)
    if "archive_format" in members or "serialized_exported_program.json" in members:
        return "is a program of torch.export: give it as the model, without --weights"
    if "constants.pkl" in members:
        return f"is a TorchScript archive, which is code and not weights; {SAVE_STATE_DICT}"
    if "data.pkl" in members:
        return None
    if all(name.endswith(".npy") for name in names):
        return "is an archive of NumPy arrays (.npz): expected weights of PyTorch; convert it with the source library"
    return "is a zip archive without a state dict in it: unpack it, and give the file of weights"


def _load(path: Path, *, mmap: bool) -> Any:
    is_misnamed = path.suffix == ".safetensors"  # torch.load goes by the name, where it is given one
    try:
        with torch.serialization.safe_globals([argparse.Namespace]), path.open("rb") as file:
            source = file if is_misnamed else path
            return torch.load(source, map_location="cpu", weights_only=True, mmap=mmap and not is_misnamed)
    except pickle.UnpicklingError as error:
        raise WeightsError(f'weights file "{path}" {_refusal(path, error)}') from error
    except Exception as error:  # a damaged file makes torch.load raise almost anything
        raise WeightsError(
            f'weights file "{path}" is damaged, or not a file of torch.save ({type(error).__name__}); '
            "fetch it again, or save it with safetensors.torch.save_file"
        ) from error


def _refusal(path: Path, error: pickle.UnpicklingError) -> str:
    classes = _refused_classes(path, error)
    if not classes:
        return "is damaged, or not a file of torch.save; fetch it again"
    shown = first_few(classes)
    if any(name.startswith(_MODULES) for name in classes):
        return (
            f"is a whole model (torch.save(model)), which runs code when loaded ({shown}); {SAVE_STATE_DICT}"
        )
    return f"holds Python objects beside the weights ({shown}), which may run code when loaded; {SAVE_STATE_DICT}"


def _refused_classes(path: Path, error: pickle.UnpicklingError) -> list[str]:
    """The classes that `weights_only` does not make, models first; empty if the file is simply broken."""
    try:
        found = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    except Exception:  # not an archive, or broken: the refusal itself names one
        found = []
    found = [name for name in found if name != "argparse.Namespace"] or _REFUSED.findall(str(error))
    return sorted(set(found), key=lambda name: (not name.startswith(_MODULES[1:]), name))
