"""Write an ONNX model into a file, and check what was written."""

import errno
import os
import resource
from pathlib import Path

import onnx
import onnx_ir as ir

from exporter.errors import InternalError

_EXTERNAL_ABOVE_BYTES = 2_000_000_000
"""protobuf ends at 2 GiB; larger models keep their weights beside them, in `model.onnx.data`."""


def save(model: ir.Model, path: Path) -> None:
    """Write a model; one beyond protobuf's limit as two files."""
    if is_large(model):
        save_apart(model, path)
    else:
        _save(model, path, None)


def save_apart(model: ir.Model, path: Path) -> None:
    """Write a model as two files, with its weights in the second one."""
    _save(model, path, f"{path.name}.data")


def _save(model: ir.Model, path: Path, external_data: str | None) -> None:
    try:
        ir.save(model, path, external_data=external_data)
    except OSError as error:
        if error.errno is None:  # numpy forgets why a write stopped short: there was no room for the rest
            number = errno.EFBIG if _is_at_the_limit(path) else errno.ENOSPC
            raise OSError(number, os.strerror(number)) from error
        raise


def _is_at_the_limit(path: Path) -> bool:
    """Whether a file, or the one with its weights, is as large as this process may make one."""
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    files = [path, path.with_name(f"{path.name}.data")]
    return limit != resource.RLIM_INFINITY and any(
        file.exists() and file.stat().st_size >= limit for file in files
    )


def is_large(model: ir.Model) -> bool:
    """Whether the weights are more than one file of protobuf takes."""
    kept = [value.const_value for value in model.graph.initializers.values()]
    own = [tensor for tensor in kept if tensor and not isinstance(tensor, ir.ExternalTensor)]
    return sum(tensor.nbytes for tensor in own) > _EXTERNAL_ABOVE_BYTES


def check(path: Path) -> None:
    """Have the ONNX checker read a file.

    Raises:
        InternalError: it refuses.
    """
    try:
        onnx.checker.check_model(str(path))
    except onnx.checker.ValidationError as error:
        raise InternalError(f"the ONNX checker refuses {path.name}: {error}") from error
