"""Tiny checkpoints on disk, and bundles built once per session through the command line."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import save_file

from tests.cli.commands import Build, FirstCommand, Outcome, run, tree
from tests.support.families import family, randomise
from tests.support.once import once


@pytest.fixture(scope="session")
def vit_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face ViT: 24 pixels, patch 4 (37 tokens), 4 blocks, 10 classes."""
    model = family("hf_vit").model().tower
    assert isinstance(model, transformers.PreTrainedModel)
    return once(tmp_path_factory, "tiny-vit", model.save_pretrained)


@pytest.fixture(scope="session")
def clip_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face CLIP with both towers."""
    tower = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    }
    text = tower | {"vocab_size": 99, "max_position_embeddings": 16, "bos_token_id": 97, "eos_token_id": 98}
    model = transformers.CLIPModel(
        transformers.CLIPConfig(
            vision_config=tower | {"image_size": 32, "patch_size": 8},
            text_config=text | {"pad_token_id": 1},
            projection_dim=16,
        )
    )
    randomise(model.vision_model, 3)
    randomise(model.text_model, 4)
    return once(tmp_path_factory, "tiny-clip", model.save_pretrained)


@pytest.fixture(scope="session")
def saved_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `.pt2` of a tiny timm ViT with a free batch axis."""

    def save(folder: Path) -> None:
        vit = family("timm_vit")
        shapes = ({0: torch.export.Dim("batch")},)
        with torch.no_grad():
            exported = torch.export.export(vit.model(), (vit.images(2),), dynamic_shapes=shapes)
        torch.export.save(exported, folder / "tiny.pt2")

    return once(tmp_path_factory, "program", save) / "tiny.pt2"


@pytest.fixture(scope="session")
def weights_file(vit_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Other weights for the ViT of `vit_dir`, as a safetensors state dict."""
    model = transformers.ViTForImageClassification.from_pretrained(vit_dir)
    randomise(model, 77)
    path = tmp_path_factory.mktemp("weights") / "mine.safetensors"
    save_file(model.state_dict(), path)
    return path


@pytest.fixture(scope="session")
def labelled_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Classes 3 and 7 with three images each, of several sizes and formats."""
    folder = tmp_path_factory.mktemp("labelled")
    generator = np.random.default_rng(5)
    for label in ("3", "7"):
        (folder / label).mkdir()
        for number, suffix in enumerate(("png", "jpg", "bmp")):
            pixels = generator.integers(0, 256, (30 + 4 * number, 28, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number}.{suffix}")
    (folder / "notes.txt").write_text("not an image", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Build through the command line, once for the same words; the folder is called `bundle`."""

    def get(*words: str | Path) -> Path:
        def export(folder: Path) -> None:
            outcome = run(*words, "--out", folder / "bundle", "--quiet")
            assert outcome.status == 0, outcome.err

        key = hashlib.sha256("\0".join(map(str, words)).encode()).hexdigest()[:16]
        return once(tmp_path_factory, f"built-{key}", export) / "bundle"

    return get


@pytest.fixture
def vit_bundle(build: Build, vit_dir: Path) -> Path:
    """The tiny ViT with r=4; shared, so not to be changed."""
    return build(f"hf:{vit_dir}", "--r", "4")


@pytest.fixture(scope="session")
def first_command(tmp_path_factory: pytest.TempPathFactory) -> FirstCommand:
    """`vit_digits --r 4` in an empty folder: what it said, and the folder."""

    def export(folder: Path) -> None:
        (folder / "place").mkdir()
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder / "place")
            outcome = run("vit_digits", "--r", "4", "--target", "onnx", "--json")
        (folder / "outcome.json").write_text(json.dumps(asdict(outcome)), encoding="utf-8")

    folder = once(tmp_path_factory, "first-command", export)
    return Outcome(**json.loads((folder / "outcome.json").read_text(encoding="utf-8"))), folder / "place"


@pytest.fixture
def digits_bundle(first_command: FirstCommand) -> Path:
    """The bundle of the first command; shared, so not to be changed."""
    outcome, folder = first_command
    assert outcome.status == 0, outcome.err
    return folder / "artifacts" / "vit_digits-tome-r4"


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory; after the test it must be as the test left it before its command."""
    folder = tmp_path / "workplace"
    folder.mkdir()
    monkeypatch.chdir(folder)
    yield folder
    assert tree(folder) == {}, "something was left behind"
