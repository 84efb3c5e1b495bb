"""Settings of every test run: one thread, since the models are tiny, and the same examples every time.

A shell starts what runs in its background with Ctrl-C ignored, and so would every command that a test starts and
interrupts: this process takes Ctrl-C back.
"""

import signal
from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

from tests.support.linted import linting_whatever_is_saved

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

torch.set_num_threads(1)
settings.register_profile("exporter", deadline=None, derandomize=True)
settings.load_profile("exporter")


@pytest.fixture(autouse=True, scope="session")
def every_saved_model_is_linted() -> Iterator[None]:
    """No test emits an ONNX model that an engine would refuse."""
    with linting_whatever_is_saved():
        yield
