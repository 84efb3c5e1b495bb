"""Diffusion models through the command line: a verified bundle, and one line for each thing that makes no sense."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from exporter import load_bundle
from exporter.models import ModelRequest, load
from tests.cli.commands import refused, run
from tests.support.denoisers import merging, tiny_unet
from tests.support.once import once


@pytest.fixture(scope="session")
def unet_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder `unet` of a pipeline, with its scheduler beside it: 64 latents, 100 steps."""

    def save(folder: Path) -> None:
        tiny_unet().save_pretrained(folder / "unet")
        (folder / "scheduler").mkdir()
        scheduler = {"_class_name": "DDIMScheduler", "num_train_timesteps": 100}
        (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))

    return once(tmp_path_factory, "pipeline", save) / "unet"


def test_a_unet_ends_in_a_bundle_whose_engine_computes_what_diffusers_does(
    unet_dir: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    words = ("--method", "tomesd", "--ratio", "0.5", "--timesteps", "0,99", "--out", bundle)
    targets = ("--target", "onnx", "--target", "openvino")
    outcome = run(f"hf:{unet_dir}", *words, *targets, "--json", "--quiet")

    assert outcome.status == 0, outcome.err
    document = outcome.document
    assert document["name"] == "unet-tomesd-ratio0.5"
    assert document["schedule"] == {
        "requested": "ratio 0.5",
        "merged": [32, 32, 32],
        "tokens": [64, 64, 64, 64],
        "around": True,
    }
    assert [each["name"] for each in document["inputs"]] == ["sample", "timestep", "encoder_hidden_states"]
    assert [each["name"] for each in document["outputs"]] == ["out_sample"]
    assert document["parity"].keys() == {"onnx", "openvino"}
    for parity in document["parity"].values():
        assert parity["passed"]
        assert parity["max_abs_error"] < 1e-4
    assert document["gmacs"]["reduced"] < document["gmacs"]["dense"]
    assert json.loads((bundle / "parity.json").read_text())["onnx"]["comparisons"].keys() == {
        f"{case}/out_sample" for case in ("step 0", "step 99", "flat")
    }
    generator = np.random.default_rng(7)
    given = {
        "sample": generator.standard_normal((1, 4, 8, 8), dtype=np.float32),
        "timestep": np.array([50], dtype=np.float32),
        "encoder_hidden_states": generator.standard_normal((1, 77, 12), dtype=np.float32),
    }
    got = {name: runner(given)["out_sample"] for name, runner in load_bundle(bundle).runners().items()}
    tensors = [torch.from_numpy(array) for array in given.values()]
    with torch.no_grad(), merging(tiny_unet(), 0.5, {0, 1, 2}):
        expected = tiny_unet()(*tensors, return_dict=False)[0]
    for output in got.values():
        np.testing.assert_allclose(output, expected.numpy(), atol=1e-4)
    assert run("validate", bundle, "--quiet").status == 0


@pytest.mark.parametrize(
    ("status", "words", "said"),
    [
        pytest.param(
            2, ["--timesteps", "100"], "0 to 99, got 100", id="a step that the scheduler does not have"
        ),
        pytest.param(2, ["--image-size", "64"], "--latent-size", id="a size in pixels"),
    ],
)
def test_what_makes_no_sense_for_a_unet_is_refused(
    status: int, words: list[str], said: str, unet_dir: Path, workplace: Path
) -> None:
    assert said in refused(status, "inspect", f"hf:{unet_dir}", "--method", "tomesd", *words)


def test_latents_may_have_another_size(unet_dir: Path) -> None:
    loaded = load(ModelRequest(model=f"hf:{unet_dir}", latent_size=(4, 8)))

    assert {name: each.shape for name, each in loaded.inputs.items()} == {
        "sample": (4, 4, 8),
        "timestep": (),
        "encoder_hidden_states": (77, 12),
    }
    assert loaded.steps == 100


def test_vision_transformers_take_no_ratio_no_latents_and_no_steps(workplace: Path) -> None:
    assert "--method tomesd" in refused(2, "inspect", "vit_digits", "--ratio", "0.5")
    assert "takes no latents" in refused(2, "inspect", "vit_digits", "--latent-size", "8")
    assert "expected a diffusion model" in refused(2, "vit_digits", "--timesteps", "5")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param(
            {"_class_name": "AutoencoderKL"}, "expected one of UNet2DConditionModel", id="another class"
        ),
        pytest.param({"addition_embed_type": "image"}, "addition_embed_type", id="a condition"),
        pytest.param({"num_class_embeds": 3}, "num_class_embeds", id="classes"),
    ],
)
def test_other_models_of_diffusers_are_named(
    change: dict[str, object], said: str, unet_dir: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(unet_dir, tmp_path / "unet")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))

    assert said in refused(3, "inspect", f"hf:{folder}", "--method", "tomesd")


def test_without_diffusers_one_line_says_what_to_install(
    unet_dir: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    monkeypatch.delitem(sys.modules, "exporter.models.diffusers.source", raising=False)

    assert 'pip install "exporter[diffusers]"' in refused(
        7, "inspect", f"hf:{unet_dir}", "--method", "tomesd"
    )
