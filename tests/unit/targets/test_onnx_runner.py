"""The ONNX runner over a model made by hand."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from exporter.errors import BundleError
from exporter.targets import open_runner
from exporter.targets.onnx.runner import OnnxRunner
from tests.support.hand_made_onnx import write_doubling
from tests.support.runner_contract import Opened, RunnerContract, rows


def write_model(folder: Path, batch: int | str) -> OnnxRunner:
    path = folder / "model.onnx"
    runner = open_runner("onnx", path, signature=write_doubling(path, batch))
    assert isinstance(runner, OnnxRunner)
    return runner


class TestOnnxRunner(RunnerContract):
    """Over ONNX Runtime on the CPU."""

    @pytest.fixture
    def runner_of(self, tmp_path: Path) -> Opened:
        return partial(write_model, tmp_path)


def test_session_is_opened_once_and_only_when_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    session = onnxruntime.InferenceSession

    def counting(path: str, *arguments: Any, **options: Any) -> Any:
        opened.append(path)
        return session(path, *arguments, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", counting)
    runner = write_model(tmp_path, 1)
    assert opened == []

    runner(rows(3))
    runner(rows(1))

    assert len(opened) == 1


@pytest.mark.parametrize("content", [None, b"", b"no model at all"])
def test_a_file_that_is_no_model_is_a_damaged_bundle(tmp_path: Path, content: bytes | None) -> None:
    runner = write_model(tmp_path, 1)
    (tmp_path / "model.onnx").unlink()
    if content is not None:
        (tmp_path / "model.onnx").write_bytes(content)

    with pytest.raises(BundleError, match=r"model\.onnx"):
        runner(rows(1))


def test_running_an_engine_imports_no_torch_reports_nothing_and_writes_nothing(tmp_path: Path) -> None:
    write_model(tmp_path, 1)
    home = tmp_path / "home"
    home.mkdir()
    source = (
        "import sys; import numpy as np; from pathlib import Path; "
        "from exporter.targets import Signature, TensorSpec, open_runner; "
        "spec = TensorSpec(name='images', dtype='float32', shape=(1, 2)); "
        "out = (TensorSpec(name='doubled', dtype='float32', shape=(1, 2)),); "
        "signature = Signature(inputs=(spec,), outputs=out); "
        f"runner = open_runner('onnx', Path({str(tmp_path / 'model.onnx')!r}), signature=signature); "
        "runner.load(); print(runner(np.ones((1, 2), np.float32))['doubled'].tolist(), 'torch' in sys.modules)"
    )
    inherited = {
        key: value for key, value in os.environ.items() if not key.startswith(("ORT_", "XDG_", "CI"))
    }

    said = subprocess.run(
        [sys.executable, "-c", source],
        capture_output=True,
        text=True,
        check=True,
        env={**inherited, "HOME": str(home), "PYTHONPATH": str(Path(__file__).parents[3])},
    )

    assert said.stdout.strip() == "[[2.0, 2.0]] False"
    assert list(home.rglob("*")) == []
