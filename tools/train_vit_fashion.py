"""Trains the embedded model `vit_fashion` from its seed, on Fashion-MNIST's 60,000 training images.

    python -m tools.train_vit_fashion --data FOLDER --out exporter/models/shipped/assets/vit_fashion.safetensors \
        --photos exporter/models/shipped/assets/fashion_test.npz

The data (Xiao, Rasul, Vollgraf: Fashion-MNIST, 2017; MIT licence) is Debian's package `dataset-fashion-mnist`, which
puts its four files of the form `train-images-idx3-ubyte.gz` into /usr/share/datasets/fashion-mnist, or the repository
zalandoresearch/fashion-mnist. The test images take no part in training or in choosing anything: the budget is fixed,
and the last step's weights are the ones that are written.

A small convolutional network is trained first, and the ViT learns from the labels, from its logits, and from its map of
features: 14 x 14 of them, one for each patch. Most steps see a part of the patches only (`Stage.patches`), drawn for
each image, which costs as much less. Both make the training fit two cores and a few hours. With `--state FILE` it can
be interrupted: it goes on where that file was written last, with the same numbers.

The weights that ship are of two rounds: the second one started from the first one's (`--start FILE`), with another
teacher. The metadata of the weights file holds the recipes of both.

Shape suffixes: B images, C channels, H height, W width, N patches, K those that a step sees.
"""

import argparse
import gzip
import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from exporter.errors import UsageError
from exporter.models.shipped.fashion import (
    FASHION_CLASSES,
    FASHION_PREPROCESS,
    FASHION_SIZE,
    build_vit_fashion,
)
from tools.command_line import exit_status
from tools.train_vit_digits import pack_weights, require_place, write_atomically

PHOTOS = 2000
CALIBRATION = 256  # training images that ship as well
THREADS = 2
PATCHES = (FASHION_SIZE // 2) ** 2
SHIFT = 2  # pixels, each way


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of the ViT's training: so many epochs, on so many patches of each image."""

    epochs: float
    patches: int


@dataclass(frozen=True, kw_only=True)
class TrainingRecipe:
    """The fixed budget: AdamW, linear warm-up, then a cosine to zero; random flips and shifts of the images."""

    seed: int = 0
    batch_size: int = 64
    teacher_epochs: int = 7
    teacher_learning_rate: float = 1e-3
    stages: tuple[Stage, ...] = (
        Stage(epochs=6, patches=49),
        Stage(epochs=1.2, patches=98),
        Stage(epochs=0.3, patches=PATCHES),
    )
    learning_rate: float = 1e-3
    warmup_fraction: float = 0.05
    weight_decay: float = 0.05
    label_weight: float = 0.3  # of the labels; the rest is of the teacher's logits
    feature_weight: float = 1.0
    feature_block: int = 3  # blocks that the compared features pass


@dataclass(frozen=True, kw_only=True)
class Split:
    """Grey images uint8 (B, 28, 28), and labels int64 (B,)."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]


class Residual(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) in and out."""
        return functional.relu(features + self.body(features))


class Teacher(nn.Module):
    """A convolutional network; gives logits (B, 10) and features (B, 48, 14, 14)."""

    width = 48

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(_shrink(1, 24, 1), _shrink(24, self.width, 2), Residual(self.width))
        self.coarse = nn.Sequential(_shrink(self.width, 96, 2), Residual(96))
        self.head = nn.Linear(96, len(FASHION_CLASSES))

    def forward(self, images_B1HW: Tensor) -> tuple[Tensor, Tensor]:
        """Both, of images (B, 1, 28, 28)."""
        features = self.fine(images_B1HW)
        return self.head(self.coarse(features).mean(dim=(2, 3))), features


def _shrink(before: int, after: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU())


class Student(nn.Module):
    """The ViT on a part of its patches, and a layer that compares it with the teacher's features."""

    def __init__(self, recipe: TrainingRecipe) -> None:
        super().__init__()
        self.vit = build_vit_fashion()
        self.depth = recipe.feature_block
        self.compare = nn.Linear(self.vit.embed_dim, Teacher.width)

    def forward(self, images_B1HW: Tensor, seen_BK: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, 10), and features (B, K, 48) of the patches that are seen."""
        vit = self.vit
        assert vit.pos_embed is not None and vit.cls_token is not None
        patches_BNC = vit.patch_embed(images_B1HW.expand(-1, 3, -1, -1)) + vit.pos_embed[:, 1:]
        index_BKC = seen_BK.unsqueeze(2).expand(-1, -1, patches_BNC.shape[2])
        first_B1C = (vit.cls_token + vit.pos_embed[:, :1]).expand(len(images_B1HW), -1, -1)
        tokens = vit.blocks[: self.depth](torch.cat((first_B1C, patches_BNC.gather(1, index_BKC)), dim=1))
        features = self.compare(tokens[:, 1:])
        return vit.forward_head(vit.norm(vit.blocks[self.depth :](tokens))), features


def read_split(folder: Path, part: str) -> Split:
    """One part of the data, `train` or `t10k`.

    Raises:
        UsageError: a file is missing, or is not what its header says.
    """
    images = _read_idx(folder / f"{part}-images-idx3-ubyte.gz").reshape(-1, FASHION_SIZE, FASHION_SIZE)
    return Split(images=images, labels=_read_idx(folder / f"{part}-labels-idx1-ubyte.gz").astype(np.int64))


def _read_idx(path: Path) -> npt.NDArray[np.uint8]:
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError) as error:
        raise UsageError(f"cannot read {path}: {error}; install Debian's dataset-fashion-mnist") from error
    axes = content[3]
    shape = np.frombuffer(content, ">u4", count=axes, offset=4)
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * axes)
    if content[:3] != b"\0\0\x08" or values.size != shape.prod():
        raise UsageError(f"{path}: expected an IDX file of bytes, got another content")
    return values.reshape(shape)


def normalized(images: npt.NDArray[np.uint8]) -> Tensor:
    """Grey images as both networks read them: float32 (B, 1, 28, 28)."""
    scaled = torch.from_numpy(images.astype(np.float32) / 255).unsqueeze(1)
    return (scaled - FASHION_PREPROCESS.mean[0]) / FASHION_PREPROCESS.std[0]


def varied(images_B1HW: Tensor) -> Tensor:
    """Each image flipped with probability 1/2, and shifted by up to `SHIFT` pixels in both directions."""
    batch, side = len(images_B1HW), FASHION_SIZE
    flipped = torch.where(torch.rand(batch, 1, 1, 1) < 0.5, images_B1HW.flip(3), images_B1HW)
    padded = functional.pad(flipped, (SHIFT,) * 4, value=float(images_B1HW.min()))
    rows, columns = torch.randint(0, 2 * SHIFT + 1, (2, batch, 1)) + torch.arange(side)
    return padded[torch.arange(batch).view(-1, 1, 1), 0, rows.unsqueeze(2), columns.unsqueeze(1)].unsqueeze(1)


def draw_batches(count: int, epochs: float, batch_size: int) -> Iterator[Tensor]:
    """Places of each batch: shuffled again in every epoch."""
    left = round(epochs * (count // batch_size))
    while left > 0:
        yield from torch.randperm(count).split(batch_size)[: min(left, count // batch_size)]
        left -= count // batch_size


class Training:
    """One network's steps of AdamW, which can be interrupted: everything that a step changes is in `state`."""

    def __init__(
        self, module: nn.Module, rate: float, batches: Sequence[Tensor], recipe: TrainingRecipe
    ) -> None:
        self.module, self.batches, self.done = module, batches, 0
        self.optimizer = torch.optim.AdamW(module.parameters(), lr=rate, weight_decay=recipe.weight_decay)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer,
            rate,
            total_steps=len(batches) + 1,
            pct_start=recipe.warmup_fraction,
            cycle_momentum=False,
        )

    def run(self, loss_of: Callable[[int, Tensor], Tensor], state: "State", name: str) -> None:
        """All steps that are left; `loss_of(step, batch)`."""
        parts = {"module": self.module, "optimizer": self.optimizer, "schedule": self.schedule}
        self.done = state.read(name, parts)
        while self.done < len(self.batches):
            loss = loss_of(self.done, self.batches[self.done])
            self.optimizer.zero_grad()
            torch.autograd.backward(loss)
            self.optimizer.step()
            self.schedule.step()
            self.done += 1
            if self.done % 200 == 0 or self.done == len(self.batches):
                print(f"{name}: {self.done}/{len(self.batches)}, loss {loss.item():.3f}", file=sys.stderr)
                state.write(name, parts, self.done)


class State:
    """A file of what has been done, if there is one."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.content: dict[str, Any] = {}
        if path is not None and path.is_file():
            self.content = torch.load(path, weights_only=True)

    def read(self, name: str, parts: Mapping[str, Any]) -> int:
        """Put a training where it was; the number of steps that are done."""
        found = self.content.get(name)
        if found is None:
            return 0
        for part, value in parts.items():
            value.load_state_dict(found[part])
        torch.set_rng_state(found["random"])
        return int(found["done"])

    def write(self, name: str, parts: Mapping[str, Any], done: int) -> None:
        """Keep a training as it is now."""
        if self.path is None:
            return
        kept = {part: value.state_dict() for part, value in parts.items()}
        self.content[name] = {**kept, "random": torch.get_rng_state(), "done": done}
        content = io.BytesIO()
        torch.save(self.content, content)
        write_atomically(self.path, content.getvalue())


def train_teacher(images: Tensor, labels: Tensor, recipe: TrainingRecipe, state: State) -> Teacher:
    """The convolutional network, trained on labels."""
    torch.manual_seed(recipe.seed)
    teacher = Teacher().train()
    batches = list(draw_batches(len(images), recipe.teacher_epochs, recipe.batch_size))

    def loss_of(step: int, batch: Tensor) -> Tensor:
        logits, _ = teacher(varied(images[batch]))
        return functional.cross_entropy(logits, labels[batch], label_smoothing=0.05)

    Training(teacher, recipe.teacher_learning_rate, batches, recipe).run(loss_of, state, "teacher")
    return teacher.eval()


def train_student(
    images: Tensor, labels: Tensor, teacher: Teacher, recipe: TrainingRecipe, start: Path | None, state: State
) -> nn.Module:
    """The ViT, trained on labels and on what the teacher gives for the same images; from the weights in `start`."""
    torch.manual_seed(recipe.seed)
    student = Student(recipe).train()
    if start is not None:
        student.vit.load_state_dict({name: value.float() for name, value in load_file(start).items()})
    stages = [
        (batch, stage.patches)
        for stage in recipe.stages
        for batch in draw_batches(len(images), stage.epochs, recipe.batch_size)
    ]

    def loss_of(step: int, batch: Tensor) -> Tensor:
        shown = varied(images[batch])
        with torch.no_grad():
            wanted, features_BCHW = teacher(shown)
            wanted_features = functional.layer_norm(
                features_BCHW.flatten(2).transpose(1, 2), (Teacher.width,)
            )
        seen_BK = torch.rand(len(batch), PATCHES).argsort(dim=1)[:, : stages[step][1]]
        logits, features = student(shown, seen_BK)
        index_BKC = seen_BK.unsqueeze(2).expand(-1, -1, Teacher.width)
        return (
            recipe.label_weight * functional.cross_entropy(logits, labels[batch])
            + (1 - recipe.label_weight) * functional.cross_entropy(logits, wanted.softmax(dim=1))
            + recipe.feature_weight * functional.mse_loss(features, wanted_features.gather(1, index_BKC))
        )

    batches = [batch for batch, _ in stages]
    Training(student, recipe.learning_rate, batches, recipe).run(loss_of, state, "ViT")
    return student.vit


@torch.no_grad()
def top1(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """The fraction of images, (B, C, 28, 28), whose highest logit is their label."""
    right = [int((model(part).argmax(dim=1) == wanted).sum()) for part, wanted in _parts(images, labels)]
    return sum(right) / len(labels)


def _parts(images: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    return zip(images.split(200), labels.split(200), strict=True)


def pack_photos(test: Split, train: Split) -> bytes:
    """The content of an npz file: the first `PHOTOS` test images and their labels, and some training images."""
    content = io.BytesIO()
    np.savez_compressed(
        content,
        images=test.images[:PHOTOS],
        labels=test.labels[:PHOTOS].astype(np.uint8),
        training_images=train.images[:CALIBRATION],
    )
    return content.getvalue()


def describe(recipe: TrainingRecipe, start: Path | None) -> Mapping[str, str]:
    """What the weights file says of itself: how it was trained, and how those were that it started from."""
    training = {"data": "Fashion-MNIST, 60,000 training images", "recipe": asdict(recipe)}
    if start is not None:
        with safe_open(start, "pt") as weights:
            training["start"] = json.loads(weights.metadata()["training"])
    return {"training": json.dumps(training)}


def write(folder: Path, out: Path, photos: Path, start: Path | None, state: State) -> None:
    """Trains, writes both files, and prints the accuracy of what was written."""
    require_place(out)
    require_place(photos)
    recipe = TrainingRecipe()
    train, test = read_split(folder, "train"), read_split(folder, "t10k")
    write_atomically(photos, pack_photos(test, train))
    torch.set_num_threads(THREADS)
    images, labels = normalized(train.images), torch.from_numpy(train.labels)
    test_images, test_labels = normalized(test.images), torch.from_numpy(test.labels)
    teacher = train_teacher(images, labels, recipe, state)
    print(f"teacher: test top-1 {top1(nn.Sequential(teacher, First()), test_images, test_labels):.4f}")
    vit = train_student(images, labels, teacher, recipe, start, state)
    halves = {name: value.to(torch.float16).contiguous() for name, value in vit.state_dict().items()}
    write_atomically(out, pack_weights(halves, describe(recipe, start)))
    written = build_vit_fashion().eval()
    written.load_state_dict({name: value.float() for name, value in load_file(out).items()})
    colored = test_images.expand(-1, 3, -1, -1)
    print(f"ViT: test top-1 {top1(written, colored, test_labels):.4f} on 10,000 images")
    print(f"ViT: test top-1 {top1(written, colored[:PHOTOS], test_labels[:PHOTOS]):.4f} on those written")


class First(nn.Module):
    """The first of several values."""

    def forward(self, values: tuple[Tensor, ...]) -> Tensor:
        """That value."""
        return values[0]


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.train_vit_fashion", description="Train vit_fashion."
    )
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="with the four .gz files")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the weights (.safetensors)")
    parser.add_argument("--photos", type=Path, required=True, metavar="FILE", help="the test images (.npz)")
    parser.add_argument("--start", type=Path, metavar="FILE", help="weights that the ViT starts from")
    parser.add_argument("--state", type=Path, metavar="FILE", help="where an interrupted training goes on")
    asked = parser.parse_args(arguments)
    return exit_status(lambda: write(asked.data, asked.out, asked.photos, asked.start, State(asked.state)))


if __name__ == "__main__":
    sys.exit(main())
