"""A prepared folder around the model that was written by hand, and its script, run over stand-ins."""

import json
import runpy
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporter.targets import EmitRequest
from exporter.targets.trt.files import ONNX
from exporter.targets.trt.options import TrtOptions
from exporter.targets.trt.prepare import script_recipe, write_script
from exporter.validation import TOLERANCES
from tests.support.hand_made_onnx import write_doubling

NAME = "trt-onnx"

IMAGES = np.array([[1.0, 2.0], [3.0, 8.0]], np.float32)


def prepared_folder(folder: Path, batch: int | str = 2, images: Any = IMAGES, **options: Any) -> Path:
    """What a bundle holds once the engine of `write_doubling` is prepared in it."""
    folder.mkdir()
    signature = write_doubling(folder / ONNX, batch)
    request = EmitRequest(signature=signature, options=TrtOptions(**options))
    write_script(folder, script_recipe(NAME, request, folder / ONNX, attention=2))
    write_proof(folder, images=images, doubled=2 * images, centred=images - images.mean(axis=0))
    return folder


def write_proof(folder: Path, **arrays: Any) -> None:
    """The sample and the tolerances, as the bundle has them beside the model."""
    np.savez(folder / "sample.npz", **arrays)
    proof = {NAME: {"passed": True, "tolerances": asdict(TOLERANCES["fp32"])}}
    (folder / "parity.json").write_text(json.dumps(proof), encoding="utf-8")


def run_script(folder: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run it in this process; its exit status."""
    monkeypatch.setattr(sys, "argv", ["build_trt.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(folder / "build_trt.py"), run_name="__main__")
    status = ended.value.code
    assert isinstance(status, int)
    return status
