"""A saved program with engines, looked into before it is loaded.

`torch.export.load` unpickles what an archive asks it to, and from 2.14 on Torch-TensorRT saves its engines as pickles,
with a second pickle of build settings inside. So the archive is vetted first: raw tensors, sample inputs that the
restricted unpickler accepts, plain operators, and engines whose pickles name nothing but what Torch-TensorRT makes them
of. What is left is the engine itself, which is code for a GPU: run only what you would run as a program.
"""

import base64
import binascii
import io
import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.export.pt2_archive import PT2ArchiveReader

from exporter.errors import BundleError, TargetUnavailableError
from exporter.models.pt2.archive import CONSTANTS_CONFIG, PLAIN_FILES, WEIGHTS_CONFIG, Vetting

ABOUT = "exporter.json"
"""What was written beside the program: versions and GPU."""

_CONSTANTS = "data/constants/"
_PLAIN_TENSOR = re.compile(r"(weight|tensor)_\d+")
_TORCHBIND = re.compile(r"custom_obj_\d+")
_PICKLED = re.compile(r"opaque_obj_\d+")
_OPERATOR = re.compile(
    r"torch\.ops\.(aten|prims|tensorrt)\.(?!from_file|save)\w+\.\w+|_?operator\.getitem|#?torch\.ops\.aten\.\w+"
)
_FILES = re.compile(rf"{PLAIN_FILES}|{_CONSTANTS}(custom_obj|opaque_obj)_\d+")

_LIBRARY = "torch_tensorrt"
ENGINE_NAMES = frozenset({f"{_LIBRARY}.dynamo.runtime._TRTEngine._reconstruct_trt_engine"})
"""What the pickle of an engine is made of."""

SETTINGS_NAMES = frozenset(
    {
        "builtins.set",
        "builtins.frozenset",
        "__builtin__.set",
        "__builtin__.frozenset",
        f"{_LIBRARY}.dynamo._settings.CompilationSettings",
        f"{_LIBRARY}._Device.Device",
        f"{_LIBRARY}._enums.DeviceType",
        f"{_LIBRARY}._enums.EngineCapability",
        f"{_LIBRARY}._enums.dtype",
    }
)
"""What the pickle of an engine's build settings is made of."""


def read_about(path: Path) -> dict[str, str]:
    """What was noted down beside the program, after vetting the archive.

    Raises:
        BundleError: it is damaged, not a saved program, or holds what could run as Python when it is loaded.
    """

    def refuse_size(value: object) -> None:
        raise _unsafe(path, f"the size {value}")

    vetting = Vetting(
        files=_FILES,
        operators=_OPERATOR,
        objects=True,
        check_size=refuse_size,
        refusal=lambda what: _unsafe(path, what),
    )
    try:
        with PT2ArchiveReader(str(path)) as archive:
            vetting.check(archive)
            _check_payloads(path, archive)
            about = json.loads(archive.read_string(f"extra/{ABOUT}"))
    except BundleError:
        raise
    except Exception as error:  # the reader and the restricted unpickler have no common error type
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise BundleError(
            f"{path.name}: expected a program saved by this package, got {lines[0][:200]}"
        ) from error
    return {str(key): str(value) for key, value in about.items()}


def check_fits(about: Mapping[str, str], name: str, here: Mapping[str, str]) -> None:
    """Refuse engines of another GPU, TensorRT or PyTorch.

    Args:
        about: what was noted down when they were built.
        name: of the file.
        here: the same, of this machine.

    Raises:
        TargetUnavailableError: naming the first difference.
    """
    keys = ["torch", "torch_tensorrt", "tensorrt"]
    if about.get("hardware_compatible") != "True":
        keys.append("compute_capability")
    for key in keys:
        if about.get(key) != here[key]:
            raise TargetUnavailableError(
                f"target torch-trt: {name} was built with {key} {about.get(key)}, and this is {here[key]}; "
                "export again on this machine"
            )


def _check_payloads(path: Path, archive: PT2ArchiveReader) -> None:
    for payload in _payloads(archive, WEIGHTS_CONFIG):
        if payload["use_pickle"] or not _PLAIN_TENSOR.fullmatch(payload["path_name"]):
            raise _unsafe(path, f"pickled weights, {payload['path_name']}")
    for payload in _payloads(archive, CONSTANTS_CONFIG):
        name = payload["path_name"]
        if _PICKLED.fullmatch(name):
            _check_engine(path, archive.read_bytes(_CONSTANTS + name))
        elif not (
            _TORCHBIND.fullmatch(name) or (_PLAIN_TENSOR.fullmatch(name) and not payload["use_pickle"])
        ):
            raise _unsafe(path, f"pickled constants, {name}")


def _payloads(archive: PT2ArchiveReader, config: str) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads(archive.read_string(config))["config"]
    return list(found.values())


def _check_engine(path: Path, data: bytes) -> None:
    try:
        engine = _Inspector(data, ENGINE_NAMES).load()
        for text in engine.given[0] if isinstance(engine, _Inert) else []:
            if isinstance(text, str) and (settings := _pickled_inside(text)):
                _Inspector(settings, SETTINGS_NAMES).load()
    except _ForeignNameError as error:
        raise _unsafe(path, f"an engine that is made of {error}") from error


class _ForeignNameError(pickle.UnpicklingError):
    """A pickle asks for something that no engine is made of."""


class _Inert:
    """Stands where a pickle makes an object; keeps what it was given, and does nothing."""

    def __init__(self, *given: Any) -> None:
        self.given = given

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Inspector(pickle.Unpickler):
    """Follows a pickle without importing anything: each name that it may use is an inert class."""

    def __init__(self, data: bytes, names: frozenset[str]) -> None:
        super().__init__(io.BytesIO(data))
        self._names = names

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in self._names or "." in name:
            raise _ForeignNameError(f"{module}.{name}")
        return _Inert


def _pickled_inside(text: str) -> bytes | None:
    """The pickle that a text holds in base64, if it does: the settings; an engine's own bytes are none."""
    try:
        data = base64.b64decode(text.encode(), validate=True)
    except (binascii.Error, ValueError):
        return None
    return data if data[:1] == pickle.PROTO else None


def _unsafe(path: Path, what: str) -> BundleError:
    return BundleError(
        f"{path.name} holds {what}: expected tensors, plain operators and TensorRT engines only, which load without "
        "running Python; export again"
    )
