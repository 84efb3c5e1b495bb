"""A model in memory becomes a bundle: the saving that was asked, the model's own outputs, nothing lost on the way."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import exporter
from exporter.errors import ModelUnavailableError, ParityError, RecipeError, UnsupportedGraphError, UsageError
from exporter.pipeline import validate
from tests.support.families import family

IMAGES = family("timm_vit").images(2)
RATIO = 0.2
SHORT = {"method": "tome", "reduction_ratio": RATIO}


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return family("timm_vit").model().train().requires_grad_(True)


@pytest.fixture(scope="module")
def bundle(model: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> exporter.Bundle:
    return exporter.optimize(
        model, IMAGES, tmp_path_factory.mktemp("optimized"), token_optimizer=SHORT, batch=2
    )


def test_the_saving_is_the_one_that_was_asked(bundle: exporter.Bundle) -> None:
    counts = bundle.manifest.gmacs

    assert 1 - counts.reduced / counts.dense == pytest.approx(RATIO, abs=0.03)  # tiny: a token is much
    assert bundle.manifest.schedule.requested == "reduction-ratio 0.2"


def test_the_bundle_is_found_and_verified_wherever_its_folder_lies(
    bundle: exporter.Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = bundle.path.parent.rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)

    parity = validate(moved / "bundle").parity["onnx"]

    moved.rename(bundle.path.parent)
    assert parity.passed


def test_the_model_stays_as_it_is(bundle: exporter.Bundle, model: nn.Module) -> None:
    assert model.training
    assert all(each.requires_grad for each in model.parameters())


def test_nothing_saved_gives_the_model_s_own_outputs(model: nn.Module, tmp_path: Path) -> None:
    own = exporter.optimize(
        model, IMAGES, tmp_path, token_optimizer={"reduction_ratio": 0.0}, dynamic_batch=True
    )

    with torch.no_grad():
        expected = family("timm_vit").model().eval().requires_grad_(False)
        expected.load_state_dict(model.state_dict())
        expected_BC = expected(IMAGES).numpy()
    (found_BC,) = own.runner("onnx")(IMAGES.numpy()).values()
    np.testing.assert_allclose(found_BC, expected_BC, atol=1e-4)


@pytest.mark.parametrize(
    ("images", "keys", "error", "words"),
    [
        pytest.param(IMAGES[0], {}, UsageError, r"images: expected float32 \(batch", id="no-batch"),
        pytest.param(IMAGES.half(), {}, UsageError, "got torch.float16", id="half"),
        pytest.param(IMAGES, {"precison": "fp16"}, RecipeError, 'Did you mean "precision"', id="key"),
        pytest.param(IMAGES[:, :, :3], {}, UnsupportedGraphError, "cannot trace it", id="shape"),
    ],
)
def test_what_cannot_be_is_one_line_and_leaves_nothing(
    model: nn.Module,
    tmp_path: Path,
    images: torch.Tensor,
    keys: dict[str, Any],
    error: type[Exception],
    words: str,
) -> None:
    with pytest.raises(error, match=words) as caught:
        exporter.optimize(model, images, tmp_path / "out", token_optimizer=SHORT, **keys)

    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_failed_call_leaves_what_was_there(bundle: exporter.Bundle, model: nn.Module) -> None:
    folder = bundle.path.parent
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    with pytest.raises(UsageError, match="is there already"):
        exporter.optimize(model, IMAGES, folder, token_optimizer=SHORT)
    other = family("timm_vit").model()
    torch.manual_seed(7)
    for each in other.parameters():
        nn.init.normal_(each, std=0.05)
    impossible = {"max_abs_error": 1e-12}
    with pytest.raises(ParityError):
        exporter.optimize(other, IMAGES, folder, token_optimizer=SHORT, parity=impossible, force=True)

    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_preprocessing_goes_along(model: nn.Module, tmp_path: Path) -> None:
    side = IMAGES.shape[-1]
    given = {"image_size": [side, side], "mean": [0.5] * 3, "std": [0.25] * 3}

    bundle = exporter.optimize(model, IMAGES, tmp_path / "right", preprocess=given, token_optimizer=SHORT)
    with pytest.raises(ModelUnavailableError, match=r"model\.pt2: its preprocess\.json: unknown key men"):
        exporter.optimize(model, IMAGES, tmp_path / "wrong", preprocess={"men": 1}, token_optimizer=SHORT)
    assert not (tmp_path / "wrong").exists()

    found = bundle.preprocess()
    assert found is not None
    assert (found.image_size, found.mean, found.std) == ((side, side), (0.5,) * 3, (0.25,) * 3)
