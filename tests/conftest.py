"""Settings of every test run: one thread, since the models are tiny, and the same examples every time.

A shell starts what runs in its background with Ctrl-C ignored, `nohup` what it starts with SIGHUP ignored, and so would
every command that a test starts and interrupts: this process takes both back.

What takes a third of an export and changes no byte of it is left out: a stack trace for every node (but where a test
looks for what they leak), a new list of torch's ONNX translations for each model, and the search for unreachable
objects among those of the libraries.

Without a GPU, Triton's kernels are interpreted.
"""

import gc
import os
import signal
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest
import torch

from tests.support.linted import linting_whatever_is_saved
from tests.support.package_index import installed
from tests.support.translated_once import translating_once

RTX = "1.7.1.116"
"""The version of TensorRT for RTX that is tested."""

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read when a kernel is defined
torch.set_num_threads(1)
torch.fx.config.do_not_emit_stack_traces = True
TRANSLATIONS = import_module("torch.onnx._internal.exporter._registration").onnxscript_apis
TRANSLATIONS.get_torchlib_ops = cache(TRANSLATIONS.get_torchlib_ops)
gc.set_threshold(50_000, 20, 50)


def same_examples_every_time() -> None:
    from hypothesis import settings

    settings.register_profile("exporter", deadline=None, derandomize=True, max_examples=50)
    settings.load_profile("exporter")


if find_spec("hypothesis") is not None:  # a machine with a GPU has what the package needs, and pytest
    same_examples_every_time()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what takes packages from the package index, of TensorRT or Triton: by the fixtures that install them."""
    for item in items:
        if not {"real", "rtx", "triton"}.isdisjoint(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.package_index)


def pytest_collection_finish() -> None:
    """Leave out of every later collection what the imported libraries hold."""
    gc.freeze()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Say in the last line how many contract tests did not run, since nothing else checks what they check."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    skipped = [] if reporter is None else reporter.stats.get("skipped", [])
    number = sum("package_index" in report.keywords for report in skipped)
    if number:
        print(f"contract tests skipped for want of a package index: {number}")


@pytest.fixture(scope="session")
def rtx() -> Any:
    """TensorRT for RTX itself: its parser and builder need no GPU. About 100 MB, downloaded once."""
    name = "tensorrt_rtx_bindings"
    if find_spec(name) is None:
        sys.path.append(
            str(installed(f"tensorrt-rtx-cu13-bindings=={RTX}", f"tensorrt-rtx-cu13-libs=={RTX}"))
        )
    return import_module(name)


@pytest.fixture(autouse=True, scope="session")
def every_saved_model_is_linted() -> Iterator[None]:
    """No test emits an ONNX model that an engine would refuse."""
    with linting_whatever_is_saved(), translating_once():
        yield
