"""Folders are matched with the class names that a checkpoint itself has, whatever their order."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from exporter.models import Preprocess, crop_image, normalize
from tests.cli.commands import refused, run
from tests.support.families import randomise

COUNT = 60


PETS = {0: "tabby cat", 1: "goldfish", 2: "Dog"}
PLAIN = Preprocess(
    image_size=(24, 24), interpolation="bilinear", crop_fraction=1.0, mean=(0.5,) * 3, std=(0.5,) * 3
)


@pytest.fixture(scope="session")
def pets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny checkpoint, and images in folders that are called like what the checkpoint itself says about them."""
    folder = tmp_path_factory.mktemp("pets")
    size: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    }
    config = transformers.ViTConfig(
        **size,
        image_size=24,
        patch_size=4,
        id2label=PETS,
        label2id={name: each for each, name in PETS.items()},
    )
    model: Any = transformers.ViTForImageClassification(config)
    randomise(model, 5)
    model.eval()
    images = [
        Image.fromarray(np.random.default_rng(n).integers(0, 256, (6, 6, 3), np.uint8)).resize((24, 24))
        for n in range(COUNT)
    ]
    inputs = torch.from_numpy(np.stack([normalize(crop_image(each, PLAIN), PLAIN) for each in images]))
    with torch.no_grad():
        logits = model(inputs).logits
        model.classifier.bias -= logits.mean(0)
        answers = model(inputs).logits.argmax(1).tolist()
    model.save_pretrained(folder / "model")
    processor = transformers.ViTImageProcessor(size={"height": 24, "width": 24}, resample=2)
    processor.save_pretrained(folder / "model")
    for number, (image, answer) in enumerate(zip(images, answers, strict=True)):
        place = folder / "data" / PETS[answer].replace(" ", "_")
        place.mkdir(parents=True, exist_ok=True)
        image.save(place / f"{number:02}.png")
    (folder / "data" / "__MACOSX").mkdir()
    images[0].save(folder / "data" / "__MACOSX" / "a.png")
    assert sorted(path.name for path in (folder / "data").iterdir()) == [
        "Dog",
        "__MACOSX",
        "goldfish",
        "tabby_cat",
    ]
    return folder / "model", folder / "data"


def test_a_checkpoints_own_class_names_are_what_folders_are_matched_with(
    pets: tuple[Path, Path], tmp_path: Path
) -> None:
    model, data = pets

    outcome = run(f"hf:{model}", "--r", "2", "--data", data, "--out", tmp_path / "bundle", "--json")

    assert outcome.status == 0, outcome.err
    found = outcome.document
    assert found["accuracy"]["dense"] == {"top1": 100.0, "top5": 100.0, "n": COUNT}
    assert found["labels"] == [
        {"label": "Dog", "class": "Dog", "index": 2},
        {"label": "goldfish", "class": "goldfish", "index": 1},
        {"label": "tabby_cat", "class": "tabby cat", "index": 0},
    ]
    assert found["notes"] == ["skipped, as no images and no classes: __MACOSX"]
    recipe = (tmp_path / "bundle" / "recipe.yaml").read_text(encoding="utf-8")
    assert "data: null" in recipe and str(data) not in recipe


def test_parts_of_a_data_set_are_no_classes_of_a_checkpoint(
    pets: tuple[Path, Path], tmp_path: Path, workplace: Path
) -> None:
    model, data = pets
    for name in ("train", "test"):
        shutil.copytree(data, tmp_path / "split" / name)

    complaint = refused(2, f"hf:{model}", "--r", "2", "--data", tmp_path / "split")

    assert "not classes; give one of them, such as --data" in complaint
    assert complaint.endswith("/split/test")
