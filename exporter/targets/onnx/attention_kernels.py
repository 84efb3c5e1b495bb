"""Which attention kernel ONNX Runtime chose, as far as it says.

Its CUDA provider prints a line for every fused attention that it runs, if an environment variable was set before the
session was opened; it prints to the process's own standard output, past Python's.
"""

import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any

from exporter.signature import Array

_VARIABLE = "ORT_ENABLE_ATTENTION_KERNEL_DEBUG_INFO"

_LINE = re.compile(r"Operator=\w+ Node=(?P<node>\S+) .*?SdpaKernel=(?P<kernel>\w+)")


def attention_kernels(open_session: Callable[[], Any], feed: Mapping[str, Array]) -> dict[str, str]:
    """Open a session, run it once, and return the kernel of every fused attention by node.

    The kernels are those of ONNX Runtime's `AttentionKernelDebugInfo`: FLASH_ATTENTION, EFFICIENT_ATTENTION,
    CUDNN_FLASH_ATTENTION, TRT_FUSED_ATTENTION and others, or MATH for the unfused one.

    Args:
        open_session: opens a new session.
        feed: its input.
    """
    before = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = "1"
    with tempfile.TemporaryFile() as printed:
        try:
            with _standard_output_into(printed):
                open_session().run(None, dict(feed))
        finally:
            os.environ.pop(_VARIABLE)
            if before is not None:
                os.environ[_VARIABLE] = before
        printed.seek(0)
        return read_kernels(printed.read().decode(errors="replace"))


def read_kernels(printed: str) -> dict[str, str]:
    """Kernel by node, from what ONNX Runtime printed."""
    return {found["node"]: found["kernel"] for found in _LINE.finditer(printed)}


@contextmanager
def _standard_output_into(file: IO[bytes]) -> Iterator[None]:
    """Collect everything that this process writes to standard output, native code included, in a file."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(file.fileno(), 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
