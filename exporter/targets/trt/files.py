"""The files of an engine: `model.engine`, the ONNX that it was built from, and what is known of it.

model.engine        the serialised engine, good for one TensorRT version and one kind of GPU
model_trt.onnx      what it was built from; travels, and gives a stripped engine its weights back
model_trt.json      identity, and the table of layers
"""

import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from exporter.errors import BundleError, UsageError
from exporter.targets.trt.library import TENSORRT
from exporter.targets.trt.options import HardwareCompatibility, TrtOptions

ENGINE = "model.engine"
ONNX = TENSORRT.onnx
RECORD = "model_trt.json"

_CHUNK_BYTES = 1 << 20

_BUILD_OPTIONS = (
    "min_batch",
    "opt_batch",
    "max_batch",
    "workspace_mb",
    "builder_level",
    "tf32",
    "hardware_compatibility",
    "version_compatible",
    "strip_plan",
    "refit",
)
"""What changes an engine; a timing cache only says which of equal kernels is faster, a CUDA graph how to launch it."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What an engine was built from: its own bytes differ from build to build.

    Attributes:
        onnx_sha256: of the model, and of the weights beside it where they are apart.
        options: that the engine depends on, as JSON.
        tensorrt: version.
        compute_capability: of the GPU that it was built on, as `9.0`.
        device: name of that GPU.
    """

    onnx_sha256: str
    options: str
    tensorrt: str
    compute_capability: str
    device: str

    @property
    def built_with(self) -> TrtOptions:
        """The options that the engine depends on; the others have their defaults."""
        return TrtOptions(**json.loads(self.options))

    def entries(self) -> dict[str, str]:
        """For the manifest."""
        return asdict(self)


def options_text(options: TrtOptions) -> str:
    """The options that the engine depends on, as JSON with sorted keys."""
    return json.dumps({name: getattr(options, name) for name in _BUILD_OPTIONS}, sort_keys=True)


def onnx_sha256(path: Path) -> str:
    """Hash of a model, continued over the weights beside it."""
    digest = hashlib.sha256()
    for file in (path, path.with_name(f"{path.name}.data")):
        if file.exists():
            with file.open("rb") as stream:
                while chunk := stream.read(_CHUNK_BYTES):
                    digest.update(chunk)
    return digest.hexdigest()


def write_atomically(path: Path, content: Any) -> None:
    """Replace a file at once, so that a build that dies leaves no half of it.

    Args:
        path: of the file.
        content: whatever gives access to its memory as bytes do.
    """
    partial = path.with_name(f".{path.name}.partial-{secrets.token_hex(4)}")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise


def write_record(folder: Path, identity: Identity, further: Mapping[str, Any]) -> None:
    """Note down what an engine is beside it."""
    text = json.dumps({"identity": identity.entries(), **further}, indent=2, sort_keys=True)
    write_atomically(folder / RECORD, f"{text}\n".encode())


def read_identity(engine: Path) -> Identity:
    """What is noted down beside an engine.

    Raises:
        BundleError: nothing is, or it cannot be read.
    """
    path = engine.with_name(RECORD)
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["identity"]
        identity = Identity(**{key: str(value) for key, value in entries.items()})
        if identity.built_with.hardware_compatibility not in get_args(HardwareCompatibility):
            raise ValueError(f"hardware compatibility {identity.built_with.hardware_compatibility}")
        return identity
    except (OSError, ValueError, KeyError, TypeError, AttributeError, UsageError) as error:
        raise BundleError(
            f"{path.name}: expected what {engine.name} was built from, got {error}; build the bundle again"
        ) from error
