"""The timing cache: measured kernel times, which make the next build of a similar network much faster.

It is good for one TensorRT version and one kind of GPU. TensorRT refuses another one by returning nothing or False,
or by reporting an error and going on without it; all three are a refusal here.
"""

import os
from pathlib import Path
from typing import Any

from exporter.errors import UsageError
from exporter.targets.trt.device import Device
from exporter.targets.trt.files import write_atomically
from exporter.targets.trt.library import Log


def read(path: Path) -> bytes:
    """What the file holds; nothing if it is not there yet.

    Raises:
        UsageError: it cannot be read, or could not be written after the build.
    """
    if not path.parent.is_dir():
        raise UsageError(f"trt.timing_cache: expected a file in an existing folder, got {path}")
    if not os.access(path.parent, os.W_OK):
        raise UsageError(f"trt.timing_cache: expected a file in a folder that can be written, got {path}")
    try:
        return path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise UsageError(f"trt.timing_cache: {path} cannot be read: {error.strerror}") from error


def attach(trt: Any, config: Any, content: bytes, log: Log, device: Device, source: str) -> Any:
    """Give the builder a cache of that content, and return it: it has to live until the engine is built.

    Args:
        trt: the package.
        config: the builder's.
        content: serialised; empty for a new cache.
        log: where TensorRT reports to.
        device: built on.
        source: what to call it in a message.

    Raises:
        UsageError: TensorRT does not take it.
    """
    said = len(log.errors)
    cache = config.create_timing_cache(content)
    taken = cache is not None and config.set_timing_cache(cache, False)
    if not taken or len(log.errors) > said:
        reason = "; ".join(log.errors[said:]) or "it does not say why"
        raise UsageError(
            f"trt.timing_cache: {source} is no cache of TensorRT {trt.__version__} for {device.name} (compute "
            f"capability {device.capability_text}), TensorRT refuses it: {reason}; delete it or name another file"
        )
    return cache


def write(path: Path, content: bytes) -> None:
    """Replace the file at once.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        write_atomically(path, content)
    except OSError as error:
        raise UsageError(f"trt.timing_cache: {path} cannot be written: {error.strerror}") from error
