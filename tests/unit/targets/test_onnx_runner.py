"""The ONNX runner over a model made by hand: batches, padding, processes, and what it refuses."""

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from exporter.errors import BundleError, UsageError
from exporter.targets import Signature, TensorSpec, open_runner
from exporter.targets.onnx.runner import OnnxRunner


def write_model(path: Path, batch: int | str) -> OnnxRunner:
    """A model of two outputs: `doubled` is 2x, `batch_mean` is each row less the mean of its batch."""
    graph = helper.make_graph(
        [
            helper.make_node("Add", ["images", "images"], ["doubled"]),
            helper.make_node("ReduceMean", ["images", "axes"], ["mean"], keepdims=1),
            helper.make_node("Sub", ["images", "mean"], ["centred"]),
        ],
        "by_hand",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch, 2])],
        [
            helper.make_tensor_value_info("doubled", TensorProto.FLOAT, [batch, 2]),
            helper.make_tensor_value_info("centred", TensorProto.FLOAT, [batch, 2]),
        ],
        [helper.make_tensor("axes", TensorProto.INT64, [1], [0])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, str(path))
    spec = TensorSpec(name="images", dtype="float32", shape=(batch, 2))
    outputs = tuple(
        TensorSpec(name=name, dtype="float32", shape=(batch, 2)) for name in ("doubled", "centred")
    )
    runner = open_runner("onnx", path, signature=Signature(inputs=(spec,), outputs=outputs))
    assert isinstance(runner, OnnxRunner)
    return runner


def rows(count: int) -> Any:
    return np.arange(2 * count, dtype=np.float32).reshape(count, 2)


@pytest.mark.parametrize("batch", [1, 2, 3, 8, "batch"])
@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_as_many_rows_come_out_as_go_in(tmp_path: Path, batch: int | str, count: int) -> None:
    outputs = write_model(tmp_path / "model.onnx", batch)(rows(count))

    np.testing.assert_array_equal(outputs["doubled"], 2 * rows(count))
    assert list(outputs) == ["doubled", "centred"]


def test_a_short_batch_is_padded_with_its_last_row(tmp_path: Path) -> None:
    outputs = write_model(tmp_path / "model.onnx", 4)(rows(2))

    padded = rows(2)[[0, 1, 1, 1]]
    np.testing.assert_allclose(outputs["centred"], (padded - padded.mean(axis=0))[:2])


def test_memory_layout_does_not_matter(tmp_path: Path) -> None:
    runner = write_model(tmp_path / "model.onnx", 3)
    transposed = np.asfortranarray(rows(6))

    np.testing.assert_array_equal(runner(transposed)["doubled"], 2 * rows(6))
    np.testing.assert_array_equal(runner(rows(12)[::2])["doubled"], 2 * rows(12)[::2])


def test_session_is_opened_once_and_only_when_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    session = onnxruntime.InferenceSession

    def counting(path: str, *arguments: Any, **options: Any) -> Any:
        opened.append(path)
        return session(path, *arguments, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", counting)
    runner = write_model(tmp_path / "model.onnx", 1)
    assert opened == []

    runner(rows(3))
    runner(rows(1))

    assert len(opened) == 1


def test_pickle_carries_no_session(tmp_path: Path) -> None:
    runner = write_model(tmp_path / "model.onnx", 2)
    runner(rows(2))

    copy = pickle.loads(pickle.dumps(runner))

    assert copy == runner
    np.testing.assert_array_equal(copy(rows(3))["doubled"], 2 * rows(3))


@pytest.mark.parametrize(
    ("images", "words"),
    [
        pytest.param(np.zeros((2, 3), np.float32), ["images", "of 2", "(2, 3)"], id="width"),
        pytest.param(np.zeros(2, np.float32), ["images", "(2,)"], id="rank"),
        pytest.param(np.zeros((0, 2), np.float32), ["at least one", "(0, 2)"], id="none"),
        pytest.param(np.zeros((1, 2), np.float16), ["float32", "float16"], id="half"),
        pytest.param(np.zeros((1, 2), np.int64), ["float32", "int64"], id="integers"),
    ],
)
def test_wrong_images_are_refused(tmp_path: Path, images: Any, words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        write_model(tmp_path / "model.onnx", 1)(images)

    assert [word for word in words if word not in str(caught.value)] == []


@pytest.mark.parametrize("content", [None, b"", b"no model at all"])
def test_a_file_that_is_no_model_is_a_damaged_bundle(tmp_path: Path, content: bytes | None) -> None:
    runner = write_model(tmp_path / "model.onnx", 1)
    (tmp_path / "model.onnx").unlink()
    if content is not None:
        (tmp_path / "model.onnx").write_bytes(content)

    with pytest.raises(BundleError, match=r"model\.onnx"):
        runner(rows(1))


def test_running_an_engine_imports_no_torch() -> None:
    source = (
        "import sys; from pathlib import Path; from exporter.targets import Signature, TensorSpec, open_runner; "
        "spec = TensorSpec(name='x', dtype='float32', shape=(1, 2)); "
        "open_runner('onnx', Path('model.onnx'), signature=Signature(inputs=(spec,), outputs=(spec,))); "
        "print('torch' in sys.modules)"
    )

    said = subprocess.run(
        [sys.executable, "-c", source],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[3],
    )

    assert said.stdout.strip() == "False"


def test_running_an_engine_reports_to_nobody_and_writes_nothing(tmp_path: Path) -> None:
    write_model(tmp_path / "model.onnx", 1)
    home = tmp_path / "home"
    home.mkdir()
    source = (
        "import numpy as np; from pathlib import Path; "
        "from exporter.targets import Signature, TensorSpec, open_runner; "
        "spec = TensorSpec(name='images', dtype='float32', shape=(1, 2)); "
        "out = (TensorSpec(name='doubled', dtype='float32', shape=(1, 2)),); "
        "signature = Signature(inputs=(spec,), outputs=out); "
        f"runner = open_runner('onnx', Path({str(tmp_path / 'model.onnx')!r}), signature=signature); "
        "runner.load(); print(runner(np.ones((1, 2), np.float32))['doubled'].tolist())"
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

    assert said.stdout.strip() == "[[2.0, 2.0]]"
    assert list(home.rglob("*")) == []
