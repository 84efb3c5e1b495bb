"""The engines of the CPU that read ONNX, for tests that hold for each of them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from torch.export import ExportedProgram

from exporter.rewrite import RewrittenProgram
from exporter.targets import Artifact, EmitRequest, target
from exporter.targets.onnx.build import build as translate_to_onnx
from exporter.targets.onnx.options import OnnxOptions
from exporter.targets.openvino.options import OpenVinoOptions
from tests.support.tiny_vit import request_of

Emit = Callable[[RewrittenProgram, Path], Artifact]
"""A program and the folder to write into."""


@contextmanager
def translated_once() -> Iterator[None]:
    """The translation to ONNX is the same for both engines, and takes longest: each program's is made once."""
    with pytest.MonkeyPatch.context() as patch:
        done: dict[ExportedProgram, Any] = {}

        def build(exported: ExportedProgram, request: EmitRequest, *opset: int | None) -> Any:
            if exported not in done:
                done[exported] = translate_to_onnx(exported, request, *opset)
            return done[exported].clone()

        for room in ("onnx", "openvino"):
            patch.setattr(f"exporter.targets.{room}.emit.build", build)
        yield


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
