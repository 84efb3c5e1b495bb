"""Inputs that are not square or have not three channels, from the export to the report and the rebuilt bundle.

Expected values come from the source libraries: their modules on their transforms, and the regions of a report from the
sample's own pixels, patch by patch.
"""

import base64
import io
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import timm
import torch
import transformers
from PIL import Image
from timm.data.transforms_factory import create_transform
from torch import nn

from exporter.models import Preprocess
from exporter.models.preprocessing.preprocess import channel_order
from tests.cli.commands import manifest, refused, run
from tests.support.families import HUGGING_FACE, OneTensorOut, randomise
from tests.support.odd_images import odd_image, real_photos

MEANS, DEVIATIONS = (0.5, 0.4, 0.3, 0.6), (0.2, 0.3, 0.4, 0.25)
CLASSES = 60
MODES = {1: "L", 3: "RGB", 4: "RGBA"}
PHOTOS = ("RGBA", "palette", "two colours", "photo of a temple", "portrait", "grey with alpha")


@dataclass(frozen=True, kw_only=True)
class Shaped:
    """A tiny ViT: timm's as a saved program, or one of transformers as a folder.

    Attributes:
        shape: channels, height and width of its input.
        patch: height and width of a patch.
        folder: whether it is one of transformers.
    """

    shape: tuple[int, int, int]
    patch: tuple[int, int]
    folder: bool = False

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.shape[1] // self.patch[0], self.shape[2] // self.patch[1]

    @property
    def takes_photos(self) -> bool:
        """Whether a photo has so many channels."""
        return self.shape[0] in MODES

    def module(self) -> nn.Module:
        """Build it."""
        channels, *size = self.shape
        if self.folder:
            own = {
                "num_hidden_layers": 2,
                "image_size": size,
                "patch_size": self.patch[0],
                "num_channels": channels,
            }
            config = transformers.ViTConfig(**HUGGING_FACE | own | {"num_labels": CLASSES})
            tower = transformers.ViTForImageClassification(config)
            randomise(tower, 1)
            return OneTensorOut(tower).eval().requires_grad_(False)
        vit = timm.models.VisionTransformer(
            img_size=tuple(size),  # type: ignore[arg-type]
            patch_size=self.patch,
            in_chans=channels,
            embed_dim=32,
            depth=2,
            num_heads=2,
            num_classes=CLASSES,
        )
        randomise(vit, 1)
        return vit.eval().requires_grad_(False)

    def transform(self) -> Callable[[Image.Image], torch.Tensor]:
        """Give the library's, of images with the model's channels."""
        channels = self.shape[0]
        if self.folder:
            processor = self.processor()
            return lambda image: processor(image.convert(MODES[channels]), return_tensors="pt")[
                "pixel_values"
            ][0]
        seen: Callable[[Image.Image], torch.Tensor] = create_transform(
            input_size=self.shape,
            mean=MEANS[:channels],
            std=DEVIATIONS[:channels],
            crop_pct=0.9,
            interpolation="bilinear",
        )
        return lambda image: seen(image.convert(MODES[channels]))

    def processor(self) -> Any:
        """Make the one of transformers."""
        channels, height, width = self.shape
        size = {"height": height, "width": width}
        look: Any = {"image_mean": list(MEANS[:channels]), "image_std": list(DEVIATIONS[:channels])}
        return transformers.ViTImageProcessor(size=size, **look)

    def preprocess(self) -> Preprocess:
        """Say in our words what timm's transform does."""
        channels, height, width = self.shape
        order = channel_order(channels)
        assert order is not None
        return Preprocess(
            image_size=(height, width),
            interpolation="bilinear",
            crop_fraction=0.9,
            mean=MEANS[:channels],
            std=DEVIATIONS[:channels],
            channel_order=order,
            fill=(0,) * channels,
        )


SHAPES = {
    "gray, wide, of high patches": Shaped(shape=(1, 64, 72), patch=(16, 8)),
    "rgba, high, with pixels left over": Shaped(shape=(4, 60, 44), patch=(8, 8)),
    "hf, gray": Shaped(shape=(1, 32, 32), patch=(8, 8), folder=True),
    "hf, wide": Shaped(shape=(3, 32, 48), patch=(8, 8), folder=True),
    "two channels": Shaped(shape=(2, 40, 32), patch=(8, 8)),
}
EVERY = [pytest.param(name, id=name) for name in SHAPES]


@dataclass(frozen=True, kw_only=True)
class Built:
    """A bundle of a shape, the model as the command was given it, and the photos that it was measured on."""

    shaped: Shaped
    model: str
    photos: Path
    bundle: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Built]:
    """Export a shape through the command line, once; photos lie in folders of the classes that its module says."""
    made: dict[str, Built] = {}

    def get(name: str) -> Built:
        if name not in made:
            made[name] = build(SHAPES[name], tmp_path_factory.mktemp("shaped"))
        return made[name]

    return get


def build(shaped: Shaped, folder: Path) -> Built:
    module = shaped.module()
    model = saved_folder(shaped, module, folder) if shaped.folder else saved_program(shaped, module, folder)
    words: list[str | Path] = [model, "--r", "4", "--out", folder / "bundle", "--quiet"]
    if shaped.takes_photos:
        sort_photos(shaped, module, folder / "photos")
        words += ["--data", folder / "photos"]
    outcome = run(*words)
    assert outcome.status == 0, outcome.err
    return Built(shaped=shaped, model=model, photos=folder / "photos", bundle=folder / "bundle")


def saved_program(shaped: Shaped, module: nn.Module, folder: Path) -> str:
    extra = {"preprocess.json": json.dumps(shaped.preprocess().to_dict())} if shaped.takes_photos else None
    with torch.no_grad():
        exported = torch.export.export(module, (torch.randn(1, *shaped.shape),))
    torch.export.save(exported, folder / "vit.pt2", extra_files=extra)
    return str(folder / "vit.pt2")


def saved_folder(shaped: Shaped, module: nn.Module, folder: Path) -> str:
    assert isinstance(module, OneTensorOut)
    assert isinstance(module.tower, transformers.PreTrainedModel)
    module.tower.save_pretrained(folder / "vit")
    shaped.processor().save_pretrained(folder / "vit")
    return f"hf:{folder / 'vit'}"


def sort_photos(shaped: Shaped, module: nn.Module, folder: Path) -> None:
    transform = shaped.transform()
    found = set()
    for number, name in enumerate(PHOTOS):
        image = odd_image(name)
        with torch.no_grad():
            label = int(module(transform(image)[None]).argmax())
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        image.save(folder / str(label) / f"{number}.png")
        found.add(label)
    assert len(found) > 1, "one class for all photos tells nothing"


@pytest.mark.parametrize("name", EVERY)
def test_the_engine_takes_the_models_shape_and_passes(name: str, built: Callable[[str], Built]) -> None:
    made = built(name)
    said = manifest(made.bundle)
    assert said["inputs"] == [{"name": "images", "dtype": "float32", "shape": [1, *made.shaped.shape]}]
    assert said["parity"]["onnx"]["passed"]
    assert (said["preprocess"] is None) == (not made.shaped.takes_photos)


@pytest.mark.parametrize("name", [name for name in SHAPES if SHAPES[name].takes_photos])
def test_photos_are_seen_as_the_library_sees_them(name: str, built: Callable[[str], Built]) -> None:
    """The sample is a photo by the library's transform; the dense model says of photos what its module said."""
    made = built(name)
    with Image.open(real_photos()["china"]) as photo:
        expected = made.shaped.transform()(photo).numpy()
    sample = np.load(made.bundle / "sample.npz")["images"]
    np.testing.assert_allclose(sample[0], expected, rtol=1e-6, atol=5e-7)
    measured = json.loads((made.bundle / "validation.json").read_text(encoding="utf-8"))
    assert measured["accuracy"]["dense"] == {"top1": 100.0, "top5": 100.0, "n": len(PHOTOS)}


@pytest.mark.parametrize("name", EVERY)
def test_the_report_draws_the_regions_of_the_sample(
    name: str, built: Callable[[str], Built], tmp_path: Path
) -> None:
    made = built(name)
    bundle = tmp_path / "bundle"
    shutil.copytree(made.bundle, bundle)
    outcome = run("report", bundle, "--quiet")
    assert outcome.status == 0, outcome.err
    original, *after = pictures(bundle)
    assert original.shape[:2] == made.shaped.shape[1:]
    groups = np.load(bundle / "merges.npz")["groups_LBT"][:, 0, 1:]
    for drawn, group in zip(after, groups, strict=True):
        assert_regions(drawn, original, group.reshape(made.shaped.grid), made.shaped.patch)


def pictures(bundle: Path) -> list[npt.NDArray[np.uint8]]:
    page = (bundle / "report.html").read_text(encoding="utf-8")
    found = re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", page)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(each))).convert("RGB")) for each in found]


def assert_regions(
    drawn: npt.NDArray[np.uint8],
    original: npt.NDArray[np.uint8],
    groups: npt.NDArray[Any],
    patch: tuple[int, int],
) -> None:
    """Compare the middle of every patch with the mean of all pixels of its group."""
    (rows, columns), (height, width) = groups.shape, patch
    down, across = drawn.shape[0] // rows, drawn.shape[1] // columns
    owner = groups.repeat(height, axis=0).repeat(width, axis=1)
    covered = original[: owner.shape[0], : owner.shape[1]].astype(float)
    for row, column in np.ndindex(rows, columns):
        mean = covered[owner == groups[row, column]].mean(axis=0)
        found = drawn[row * down + down // 2, column * across + across // 2]
        np.testing.assert_allclose(found, mean, atol=0.51)


def test_bytes_with_channels_last(built: Callable[[str], Built], tmp_path: Path) -> None:
    made = built("gray, wide, of high patches")
    channels, height, width = made.shaped.shape
    words = ("--r", "4", "--input", "uint8", "--layout", "nhwc", "--data", made.photos)
    outcome = run(made.model, *words, "--out", tmp_path / "b", "--quiet")
    assert outcome.status == 0, outcome.err
    assert manifest(tmp_path / "b")["inputs"][0] == {
        "name": "images",
        "dtype": "uint8",
        "shape": [1, height, width, channels],
    }


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(("--data", "photos"), id="data"),
        pytest.param(("--input", "uint8"), id="bytes"),
        pytest.param(("--preprocess", "three.json"), id="preprocess"),
        pytest.param(("--precision", "int8", "--calibration", "photos"), id="int8"),
    ],
)
def test_two_channels_take_no_photos_and_say_why(
    words: tuple[str, ...], built: Callable[[str], Built], workplace: Path, tmp_path: Path
) -> None:
    made = built("two channels")
    (tmp_path / "photos" / "0").mkdir(parents=True)
    odd_image("odd sides").save(tmp_path / "photos" / "0" / "0.png")
    three = {"image_size": [40, 32], "mean": [0.5] * 3, "std": [0.5] * 3}
    (tmp_path / "three.json").write_text(json.dumps(three), encoding="utf-8")
    options = [tmp_path / word if word in ("photos", "three.json") else word for word in words]
    complaint = refused(2, made.model, "--r", "4", *options)
    assert (
        "takes inputs of 2 channels, which no photo has: expected 1 (gray), 3 (RGB) or 4 (RGBA)" in complaint
    )


def test_two_channels_are_noted(built: Callable[[str], Built]) -> None:
    (note,) = manifest(built("two channels").bundle)["notes"]
    assert note.startswith("the model takes inputs of 2 channels, which no photo has")


def test_timm_with_other_channels_and_sides_on_an_image_of_ones_own(tmp_path: Path) -> None:
    """What is drawn is what timm's transform leaves of the image, over white."""
    options = ("--model-option", "in_chans=4", "--model-option", "depth=2", "--image-size", "96x160")
    words = ("timm:test_vit", "--weights", "random", *options, "--r", "4", "--out", tmp_path / "b", "--quiet")
    assert run(*words).status == 0
    odd_image("RGBA").save(tmp_path / "own.png")
    outcome = run("report", tmp_path / "b", "--image", tmp_path / "own.png", "--quiet")
    assert outcome.status == 0, outcome.err
    config = timm.get_pretrained_cfg("test_vit.r160_in1k")
    assert config is not None
    transform = create_transform(
        (4, 96, 160), crop_pct=config.crop_pct, interpolation="bicubic", normalize=False
    )
    seen = Image.fromarray(np.asarray(transform(odd_image("RGBA"))).transpose(1, 2, 0))
    white = Image.new("RGBA", seen.size, (255, 255, 255, 255))
    over_white = np.asarray(Image.alpha_composite(white, seen).convert("RGB"), dtype=int)
    original, *after = pictures(tmp_path / "b")
    assert np.abs(original - over_white).max() <= 1
    assert {drawn.shape[:2] for drawn in after} == {(6 * 44, 10 * 44)}
