"""Which attention kernels ONNX Runtime ran: by the profile of one call, and by what its CUDA provider prints.

The profile names the operator and the provider of every node. Which kernel a fused attention took is only printed, a
line for each, if an environment variable was set before the session was opened; to the process's own standard output,
past Python's.
"""

import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from exporter.signature import Array
from exporter.targets.onnx.profile import KERNEL, trace

_VARIABLE = "ORT_ENABLE_ATTENTION_KERNEL_DEBUG_INFO"

_LINE = re.compile(r"Operator=\w+ Node=(?P<node>\S+) .*?SdpaKernel=(?P<kernel>\w+)")

_FUSED = re.compile(r"\w*Attention")
"""Attention, MultiHeadAttention, PackedMultiHeadAttention and others."""


def attention_kernels(
    open_session: Callable[[], Any], feed: Mapping[str, Array], settings: Any
) -> dict[str, str]:
    """Open a session, run it once, and return what every attention ran as, by node.

    The kernel of a fused one, where it is printed: FLASH_ATTENTION, EFFICIENT_ATTENTION, CUDNN_FLASH_ATTENTION,
    TRT_FUSED_ATTENTION and others, or MATH for the unfused one. Else the operator and the provider that computed it. An
    attention that is spelled as products is its softmax.

    Args:
        open_session: opens a new session with `settings`.
        feed: its input.
        settings: ONNX Runtime's session options; profiling is switched on in them.
    """
    before = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = "1"
    with tempfile.TemporaryFile() as printed, tempfile.TemporaryDirectory() as folder:
        try:
            with _standard_output_into(printed):
                events = trace(open_session, feed, settings, 1, Path(folder))
        finally:
            os.environ.pop(_VARIABLE)
            if before is not None:
                os.environ[_VARIABLE] = before
        printed.seek(0)
        return read_operators(events) | read_kernels(printed.read().decode(errors="replace"))


def read_kernels(printed: str) -> dict[str, str]:
    """Kernel by node, from what ONNX Runtime printed."""
    return {found["node"]: found["kernel"] for found in _LINE.finditer(printed)}


def read_operators(events: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Operator and provider by node, of every attention in a profile."""
    found = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(KERNEL):
            operator, provider = event["args"]["op_name"], event["args"]["provider"]
            name = "products" if operator == "Softmax" else operator
            if operator == "Softmax" or _FUSED.fullmatch(operator):
                found[event["name"].removesuffix(KERNEL)] = f"{name} on {provider}"
    return found


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
