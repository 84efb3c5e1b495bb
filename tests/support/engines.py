"""The engines of the CPU that read ONNX, for tests that hold for each of them."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from exporter.rewrite import RewrittenProgram
from exporter.targets import Artifact, target
from exporter.targets.onnx.options import OnnxOptions
from exporter.targets.openvino.options import OpenVinoOptions
from tests.support.tiny_vit import request_of

Emit = Callable[[RewrittenProgram, Path], Artifact]
"""A program and the folder to write into."""


def onnx(program: RewrittenProgram, folder: Path) -> Artifact:
    """ONNX Runtime, for a program with logits."""
    return target("onnx").emit(program, request_of(OnnxOptions()), folder)


def openvino(program: RewrittenProgram, folder: Path) -> Artifact:
    """OpenVINO, for a program with logits."""
    return target("openvino").emit(program, request_of(OpenVinoOptions()), folder)


ENGINES = [
    pytest.param(onnx, id="onnx"),
    pytest.param(
        openvino,
        id="openvino",
        marks=pytest.mark.skipif(find_spec("openvino") is None, reason="OpenVINO is not installed"),
    ),
]
