"""The one place where OpenVINO's library is imported, with its telemetry switched off.

`import openvino` imports `openvino_telemetry`, which comes along with the wheel, writes a client's number to the home
folder and reports the import to its maker. The user did not ask for that. OpenVINO does without it where
it is not installed, so that is how it looks while OpenVINO is being imported.
"""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from exporter.errors import TargetUnavailableError

_REPORTER = "openvino_telemetry"


def load_library() -> Any:
    """The module `openvino`.

    Raises:
        TargetUnavailableError: it is not installed, or does not load here.
    """
    loaded = sys.modules.get("openvino")
    if loaded is not None:
        return loaded
    try:
        with _hidden(_REPORTER):
            return importlib.import_module("openvino")
    except ImportError as error:
        raise TargetUnavailableError(
            f'target openvino: {error}; install it with: pip install "exporter[openvino]"'
        ) from error


@cache
def shared_core() -> Any:
    """OpenVINO's entry, one for the whole process and never let go.

    Its CPU plugin gives the thread that loads it another stack for signals, and takes that back when it goes. Two of
    them that go in another order than they came leave the thread with memory that is no longer there, and the next
    signal, such as that of a child process that ends, kills the process.

    Raises:
        TargetUnavailableError: OpenVINO is not installed, or does not load here.
    """
    return load_library().Core()


@contextmanager
def _hidden(name: str) -> Iterator[None]:
    """Let imports of a module fail, as if it were not installed."""
    there = sys.modules.pop(name, None)
    sys.modules[name] = None  # type: ignore[assignment]  # how Python marks a module that must not be imported
    try:
        yield
    finally:
        del sys.modules[name]
        if there is not None:
            sys.modules[name] = there
