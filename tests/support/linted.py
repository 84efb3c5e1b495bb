"""Every ONNX file that a test emits is linted: neither TensorRT nor ONNX Runtime may refuse it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import onnx_ir as ir

from exporter.lint import Device, Engine, Finding, lint


def assert_linted(path: Path) -> None:
    """Fail with everything that TensorRT or ONNX Runtime would refuse, but for models that are not meant for them.

    Those are bfloat16, which ONNX Runtime does not compute on a CPU, activations quantised to uint8, which are for
    CPUs, whole attention operators (ONNX Runtime's own, and ONNX's over rows of channels, which TensorRT does not
    take), and opsets that are asked for though TensorRT does not read them yet. Where a file is meant for one engine,
    `assert_taken` makes no exception.
    """
    found = (*lint(path, "trt").errors, *lint(path, "ort").errors)
    _assert_none(path, [finding for finding in found if not _is_meant_for_another(finding)])


def assert_taken(path: Path, engine: Engine, device: Device = "cpu") -> None:
    """Fail with everything that one engine would refuse."""
    _assert_none(path, lint(path, engine, device=device).errors)


def _is_meant_for_another(finding: Finding) -> bool:
    bfloat16 = (finding.rule, finding.got) == ("ort-cpu-kernel", "bf16")
    newer = finding.rule == "trt-opset" and finding.got in ("opset 25", "opset 26")
    quantised = finding.operator in ("QuantizeLinear", "DequantizeLinear")
    whole = finding.rule == "trt-attention-operator" or (
        finding.rule == "trt-operator" and finding.operator == "MultiHeadAttention"
    )
    return bfloat16 or whole or newer or (quantised and finding.rule in ("trt-uint8", "trt-zero-point"))


def _assert_none(path: Path, found: Sequence[Finding]) -> None:
    assert not found, "\n".join((f"{path.name} breaks rules:", *map(str, found)))


@contextmanager
def linting_whatever_is_saved() -> Iterator[list[Path]]:
    """Lint every model that is written while this lasts, whoever writes it.

    Yields:
        the files so far.
    """
    saved: list[Path] = []
    original = ir.save

    def save(model: ir.Model, path: Any, *args: Any, **options: Any) -> None:
        original(model, path, *args, **options)
        saved.append(Path(path))
        assert_linted(Path(path))

    with patch.object(ir, "save", save):
        yield saved
