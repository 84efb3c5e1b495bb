"""Models that have weights in common refer to one file, which ONNX Runtime and the checker read."""

import shutil
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch

from exporter.targets.onnx.save import check
from exporter.targets.onnx.shared_weights import save_sharing
from tests.support.hand_made_onnx import node, one_in_one_out

SHARED = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))


def model(rows: int) -> ir.Model:
    """`x @ shared + own`, of which `own` has another shape in every model."""
    own = torch.full((rows, 64), float(rows))
    nodes = [node("MatMul", "x w", "y"), node("Add", "y b", "z")]
    return ir.from_proto(one_in_one_out(nodes, {"x": [rows, 64], "z": [rows, 64]}, {"w": SHARED, "b": own}))


def saved(folder: Path) -> dict[int, Path]:
    """Models of 8, 6 and 4 rows, one inside the other, with the weights in the innermost folder."""
    places = {8: folder, 6: folder / "inner", 4: folder / "inner/inner"}
    places[4].mkdir(parents=True)
    for rows in sorted(places):
        save_sharing(model(rows), places[rows] / "model.onnx", places[4])
    return {rows: place / "model.onnx" for rows, place in places.items()}


@pytest.mark.parametrize("rows", [4, 6, 8])
def test_model_that_shares_its_weights_computes_what_it_did(rows: int, tmp_path: Path) -> None:
    paths = saved(tmp_path / "as written")
    moved = tmp_path / "moved"
    shutil.copytree(tmp_path / "as written", moved)
    path = moved / paths[rows].relative_to(tmp_path / "as written")
    x = np.random.default_rng(rows).standard_normal((rows, 64)).astype(np.float32)

    check(path)
    (found,) = onnxruntime.InferenceSession(path).run(None, {"x": x})

    np.testing.assert_allclose(found, x @ SHARED.numpy() + rows, rtol=1e-5, atol=1e-4)


def test_weights_that_models_share_are_stored_once(tmp_path: Path) -> None:
    saved(tmp_path)

    stored = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())

    assert SHARED.nbytes < stored < 2 * SHARED.nbytes


def test_weights_of_another_model_stay_in_the_model(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    save_sharing(model(4), inner / "model.onnx", inner)
    other = model(8)
    weight = other.graph.initializers["w"]
    weight.const_value = ir.tensor(SHARED.numpy() + 1, name="w")

    save_sharing(other, tmp_path / "model.onnx", inner)

    assert (tmp_path / "model.onnx").stat().st_size > SHARED.nbytes


def test_model_is_whole_where_the_first_one_was_not_written(tmp_path: Path) -> None:
    save_sharing(model(8), tmp_path / "model.onnx", tmp_path / "inner")

    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    check(tmp_path / "model.onnx")
