"""Every option of an export, seen from the bundle that comes out."""

import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

import exporter
from exporter.errors import UsageError
from exporter.models import crop_image, preprocess_image
from tests.cli.commands import TINY, Build, manifest, refused, run
from tests.support.families import PATCHES, family


def pictures(count: int) -> list[Image.Image]:
    pixels = np.random.default_rng(9).integers(0, 256, (count, 24, 24, 3), dtype=np.uint8)
    return [Image.fromarray(each) for each in pixels]


def images(bundle: Path, count: int) -> npt.NDArray[np.float32]:
    preprocess = exporter.load_bundle(bundle).preprocess()
    assert preprocess is not None
    return np.stack([preprocess_image(picture, preprocess) for picture in pictures(count)])


def logits(bundle: Path, given: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
    return exporter.load_bundle(bundle).runner("onnx")(given)["logits"]


@pytest.fixture
def plain(build: Build) -> Path:
    """A bundle without any option that matters here."""
    return build(*TINY, "--r", "2")


@pytest.fixture
def expected(plain: Path) -> npt.NDArray[np.float32]:
    return logits(plain, images(plain, 5))


def test_static_batch_pads_the_last_one(build: Build, expected: npt.NDArray[np.float32]) -> None:
    bundle = build(*TINY, "--r", "2", "--batch", "3")

    assert manifest(bundle)["inputs"][0]["shape"] == [3, 3, 64, 64]
    np.testing.assert_allclose(logits(bundle, images(bundle, 5)), expected, atol=1e-4)


def test_dynamic_batch_takes_any(build: Build, expected: npt.NDArray[np.float32]) -> None:
    bundle = build(*TINY, "--r", "2", "--dynamic-batch")

    assert manifest(bundle)["inputs"][0]["shape"] == ["batch", 3, 64, 64]
    assert manifest(bundle)["outputs"][0]["shape"] == ["batch", 1000]
    for count in (1, 2, 5):
        np.testing.assert_allclose(logits(bundle, images(bundle, count)), expected[:count], atol=1e-4)


def test_runner_travels_to_another_process(plain: Path, expected: npt.NDArray[np.float32]) -> None:
    runner = exporter.load_bundle(plain).runner("onnx")
    given = images(plain, 5)
    runner(given)
    assert len(pickle.dumps(runner)) < 10_000

    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        outputs = pool.submit(runner, given).result(timeout=120)

    np.testing.assert_allclose(outputs["logits"], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        pytest.param(
            np.zeros((1, 3, 25, 24), np.float32), ["images", "3x24x24", "(1, 3, 25, 24)"], id="size"
        ),
        pytest.param(np.zeros((3, 24, 24), np.float32), ["images", "3x24x24"], id="no batch axis"),
        pytest.param(np.zeros((0, 3, 24, 24), np.float32), ["images", "at least one"], id="no images"),
        pytest.param(np.zeros((1, 3, 24, 24), np.float64), ["float32", "float64"], id="double"),
        pytest.param(np.zeros((1, 3, 24, 24), np.uint8), ["float32", "uint8"], id="bytes"),
    ],
)
def test_runner_names_what_is_wrong_with_its_input(
    vit_bundle: Path, wrong: npt.NDArray[np.generic], words: list[str]
) -> None:
    with pytest.raises(UsageError) as caught:
        exporter.load_bundle(vit_bundle).runner("onnx")(wrong)

    assert all(word in str(caught.value) for word in words)


def test_bytes_give_what_floats_give(build: Build, expected: npt.NDArray[np.float32]) -> None:
    bundle = build(*TINY, "--r", "2", "--input", "uint8", "--layout", "nhwc")
    preprocess = exporter.load_bundle(bundle).preprocess()
    assert preprocess is not None
    pixels = np.stack([crop_image(picture, preprocess) for picture in pictures(5)])

    assert manifest(bundle)["inputs"][0]["dtype"] == "uint8"
    assert manifest(bundle)["layout"] == "nhwc"
    np.testing.assert_allclose(logits(bundle, pixels.transpose(0, 2, 3, 1)), expected, atol=1e-4)


def test_half_precision_is_close_and_smaller(
    build: Build, plain: Path, expected: npt.NDArray[np.float32]
) -> None:
    bundle = build(*TINY, "--r", "2", "--precision", "fp16")

    assert manifest(bundle)["artifacts"]["onnx"]["precision"] == "fp16"
    assert (bundle / "model.onnx").stat().st_size < 0.7 * (plain / "model.onnx").stat().st_size
    given = images(bundle, 5).astype(manifest(bundle)["inputs"][0]["dtype"])
    got = logits(bundle, given)
    assert got.dtype.name == manifest(bundle)["outputs"][0]["dtype"]
    close = np.abs(got - expected).max(axis=1) < 3e-2 * max(1.0, np.abs(expected).max())
    assert close.mean() >= 0.6  # a near-tie may merge other tokens of an image


def test_pitome_merges_other_tokens(build: Build, expected: npt.NDArray[np.float32]) -> None:
    bundle = build(*TINY, "--r", "2", "--method", "pitome")

    assert manifest(bundle)["method"] == "pitome"
    assert np.abs(logits(bundle, images(bundle, 5)) - expected).max() > 1e-3


@pytest.mark.parametrize(
    ("words", "merged"),
    [
        # spread(4, -1) over 4 blocks: 8, 5.33, 2.67, 0, truncated
        pytest.param(["--r", "4", "--schedule", "decreasing"], [8, 5, 2, 0], id="decreasing"),
        pytest.param(["--r", "4", "--schedule", "increasing"], [0, 2, 5, 8], id="increasing"),
        pytest.param(["--r-per-layer", "10,0,3,1"], [10, 0, 3, 1], id="r per layer"),
        pytest.param(["--keep-per-layer", "30,30,20,12"], [7, 0, 10, 8], id="tokens kept"),
        # floor(T * 0.1): 37 -> 3, 34 -> 3, 31 -> 3, 28 -> 2
        pytest.param(["--keep-per-layer", "0.9,0.9,0.9,0.9"], [3, 3, 3, 2], id="fractions kept"),
        pytest.param(["--r", "5", "--align", "8"], [5, 8, 0, 8], id="aligned"),
    ],
)
def test_schedule_options(vit_dir: Path, words: list[str], merged: list[int]) -> None:
    document = run("inspect", f"hf:{vit_dir}", *words, "--json").document

    assert document["schedule"]["merged"] == merged


def test_built_schedule_is_the_inspected_one(vit_bundle: Path, vit_dir: Path) -> None:
    planned = run("inspect", f"hf:{vit_dir}", "--r", "4", "--json").document["schedule"]

    built = manifest(vit_bundle)

    assert built["schedule"] == {key: planned[key] for key in ("requested", "merged", "tokens")}
    assert built["parity"]["onnx"]["passed"] is True


def test_proportional_attention_can_be_left_out(build: Build, expected: npt.NDArray[np.float32]) -> None:
    bundle = build(*TINY, "--r", "2", "--no-proportional-attention")

    assert np.abs(logits(bundle, images(bundle, 5)) - expected).max() > 1e-3


def test_dead_tokens_cost_work_when_kept_and_change_no_number(
    build: Build, plain: Path, expected: npt.NDArray[np.float32]
) -> None:
    kept = build(*TINY, "--r", "2", "--disable-pass", "remove_dead_tokens")

    assert "remove_dead_tokens" not in manifest(kept)["passes"]
    assert manifest(kept)["gmacs"]["executed"] > manifest(plain)["gmacs"]["executed"]
    np.testing.assert_allclose(logits(kept, images(kept, 5)), expected, atol=1e-4)


def test_image_size_and_seed_reach_the_model(build: Build) -> None:
    found = manifest(build(*TINY, "--r", "2"))

    assert found["inputs"][0]["shape"] == [1, 3, 64, 64]
    assert found["schedule"]["tokens"][0] == 17
    assert found["model"]["weights"]["kind"] == "random"


def test_name_is_the_default_folder(vit_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "artifacts" / "mine").mkdir(parents=True)

    assert "artifacts/mine: already exists" in refused(2, f"hf:{vit_dir}", "--r", "4", "--name", "mine")


def test_saved_program_is_exported(build: Build, saved_program: Path) -> None:
    bundle = build(saved_program, "--r", "4", "--batch", "2")
    vit = family("timm_vit")
    sample = exporter.load_bundle(bundle).sample()

    assert manifest(bundle)["model"]["source"] == "pt2"
    assert manifest(bundle)["model"]["weights"]["kind"] == "program"
    assert manifest(bundle)["schedule"]["tokens"][0] == PATCHES + vit.prefix
    assert sample["images"].shape == (2, 3, 24, 24)
    assert not (bundle / "preprocess.json").exists()


def test_clip_gives_both_towers(build: Build, clip_dir: Path) -> None:
    bundles = [build(f"hf:{clip_dir}", *words) for words in (("--r", "2"), ("--tower", "text"))]
    image, text = map(manifest, bundles)

    assert image["outputs"] == [{"name": "embedding", "dtype": "float32", "shape": [1, 16]}]
    assert image["schedule"]["tokens"] == [17, 15, 13]
    assert text["inputs"] == [{"name": "input_ids", "dtype": "int64", "shape": [1, 16]}]
    assert text["outputs"] == [{"name": "embedding", "dtype": "float32", "shape": [1, 16]}]
    assert text["tower"] == "text"
    assert text["gmacs"]["ratio"] == 1.0
    assert [run("validate", bundle).status for bundle in bundles] == [0, 0]


def test_weights_beyond_protobuf_are_kept_beside_the_model(
    vit_dir: Path, vit_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exporter.targets.onnx.save._EXTERNAL_ABOVE_BYTES", 50_000)
    bundle = tmp_path / "large"

    assert run(f"hf:{vit_dir}", "--r", "4", "--out", bundle).status == 0

    assert "model.onnx.data" in manifest(bundle)["files"]
    assert (bundle / "model.onnx").stat().st_size < (vit_bundle / "model.onnx").stat().st_size
    assert run("validate", bundle).status == 0
    given = images(bundle, 5)
    np.testing.assert_array_equal(logits(bundle, given), logits(vit_bundle, given))
    (bundle / "model.onnx.data").unlink()
    assert "model.onnx.data is missing" in refused(8, "validate", bundle)
