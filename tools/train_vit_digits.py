"""Trains the embedded default model, `vit_digits`, from its seed.

    python -m tools.train_vit_digits --out exporter/models/shipped/assets/vit_digits.safetensors \
        --scans exporter/models/shipped/assets/digits_test.npz
    python -m tools.train_vit_digits --check

In: scikit-learn's 1,797 digit scans. Out: the fp16 weights and the held-out scans that
`exporter.models.shipped.digits` reads. The held-out scans take no part in training or in choosing anything: the
budget is fixed, and the last step's weights are the ones that are written. The same seed, machine and library
versions give the same bytes.

Shape suffixes: B scans, C channels, H height, W width.
"""

import argparse
import io
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save
from sklearn.datasets import load_digits  # type: ignore[import-untyped]
from torch import Tensor
from torch.nn import functional

from exporter.errors import GateError, UsageError
from exporter.models.preprocessing.pixels import preprocess_image
from exporter.models.shipped.digits import (
    DIGITS_PREPROCESS,
    VIT_DIGITS_WEIGHTS,
    build_vit_digits,
    enlarge_scans,
)
from tools.command_line import exit_status

SPLIT_SEED = 0
SPLIT = (
    "sklearn.datasets.load_digits; held out: of each digit 0..9 in turn, the first ceil(n/4) places of "
    f"numpy.random.RandomState({SPLIT_SEED}).permutation(n); trained on: the rest"
)
THREADS = 2
BACKGROUND = -1.0  # black after normalisation with mean and std 0.5
MINIMUM_TOP1 = 0.97
CHECK_TOLERANCE = 0.01

StateDict = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class TrainingRecipe:
    """The fixed budget: AdamW, linear warm-up then cosine to zero, label smoothing, small affine maps."""

    steps: int = 600
    batch_size: int = 128
    learning_rate: float = 1e-3
    warmup_steps: int = 60
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    rotation_degrees: float = 10.0
    scale: float = 0.1
    shift: float = 0.09  # of the image's side, each way


@dataclass(frozen=True, kw_only=True)
class DigitSplit:
    """Places in the data set, ascending: what is trained on and what is held out."""

    train: npt.NDArray[np.int64]
    held_out: npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Digits:
    """scikit-learn's scans: uint8 (1797, 8, 8) of 0..16, and int64 labels (1797,)."""

    scans_BHW: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]


def read_digits() -> Digits:
    """All scans, in scikit-learn's order."""
    bunch = load_digits()
    return Digits(scans_BHW=bunch.images.astype(np.uint8), labels=bunch.target.astype(np.int64))


def split_digits(labels: npt.NDArray[np.int64]) -> DigitSplit:
    """Holds out a quarter of each digit, rounded up, as `SPLIT` states. Independent of the training seed."""
    random = np.random.RandomState(SPLIT_SEED)  # its stream is frozen across numpy versions
    held_out = np.zeros(len(labels), dtype=bool)
    for digit in range(10):
        places = np.flatnonzero(labels == digit)
        held_out[places[random.permutation(len(places))[: math.ceil(len(places) / 4)]]] = True
    return DigitSplit(train=np.flatnonzero(~held_out), held_out=np.flatnonzero(held_out))


def prepare(scans_BHW: npt.NDArray[np.uint8]) -> Tensor:
    """Scans as the model's input, by the same road as at run time: float32 (B, 3, 32, 32)."""
    images_BHWC = enlarge_scans(scans_BHW)
    prepared = [preprocess_image(Image.fromarray(image), DIGITS_PREPROCESS) for image in images_BHWC]
    return torch.from_numpy(np.stack(prepared))


def draw_affine_maps(count: int, recipe: TrainingRecipe, generator: torch.Generator) -> Tensor:
    """Small random rotations, scales and shifts, float32 (count, 2, 3): from places after to places before."""
    angle, scale_x, scale_y, shift_x, shift_y = torch.rand(5, count, generator=generator) * 2 - 1
    angle = angle * math.radians(recipe.rotation_degrees)
    scale_x, scale_y = 1 + recipe.scale * scale_x, 1 + recipe.scale * scale_y
    shift_x, shift_y = 2 * recipe.shift * shift_x, 2 * recipe.shift * shift_y  # the grid spans -1..1
    row_x = torch.stack([scale_x * angle.cos(), -scale_y * angle.sin(), shift_x], dim=1)
    row_y = torch.stack([scale_x * angle.sin(), scale_y * angle.cos(), shift_y], dim=1)
    return torch.stack([row_x, row_y], dim=1)


def move(images_BCHW: Tensor, maps_B23: Tensor) -> Tensor:
    """Moves every image by its map; what comes in is background."""
    grid_BHW2 = functional.affine_grid(maps_B23, list(images_BCHW.shape), align_corners=False)
    return functional.grid_sample(images_BCHW - BACKGROUND, grid_BHW2, align_corners=False) + BACKGROUND


def jitter(images_BCHW: Tensor, recipe: TrainingRecipe, generator: torch.Generator) -> Tensor:
    """Moves every image by a small random map."""
    return move(images_BCHW, draw_affine_maps(len(images_BCHW), recipe, generator))


def learning_rate_factor(recipe: TrainingRecipe) -> Callable[[int], float]:
    """Step number to the fraction of the peak learning rate: linear warm-up, then half a cosine to zero."""

    def factor(step: int) -> float:
        if step < recipe.warmup_steps:
            return (step + 1) / recipe.warmup_steps
        progress = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * progress))

    return factor


def draw_batches(count: int, recipe: TrainingRecipe, generator: torch.Generator) -> Iterator[Tensor]:
    """Places of `recipe.steps` batches: reshuffled every epoch, the short last batch left out."""
    batch_size = min(recipe.batch_size, count)
    per_epoch = count // batch_size
    for step in range(recipe.steps):
        if step % per_epoch == 0:
            order = torch.randperm(count, generator=generator)
        start = step % per_epoch * batch_size
        yield order[start : start + batch_size]


@contextmanager
def deterministic(seed: int) -> Iterator[None]:
    """Inside: torch seeded, deterministic algorithms only, `THREADS` threads. Outside: all as it was."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.use_deterministic_algorithms(True)
        torch.set_num_threads(THREADS)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(strict)
            torch.set_num_threads(threads)


def train(images_BCHW: Tensor, labels: Tensor, *, seed: int, recipe: TrainingRecipe) -> dict[str, Tensor]:
    """Trains from scratch for the whole budget.

    Args:
        images_BCHW: float32 (B, 3, 32, 32), normalised.
        labels: int64 (B,).
        seed: Of the initial weights, the order of the data and the random affine maps.
        recipe: The budget.

    Returns:
        The weights after the last step, rounded to fp16.
    """
    with deterministic(seed):
        generator = torch.Generator().manual_seed(seed)
        model = build_vit_digits().train()
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, learning_rate_factor(recipe))
        for step, batch in enumerate(draw_batches(len(images_BCHW), recipe, generator), start=1):
            logits = model(jitter(images_BCHW[batch], recipe, generator))
            loss = functional.cross_entropy(logits, labels[batch], label_smoothing=recipe.label_smoothing)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            if step % 100 == 0:
                print(f"step {step}/{recipe.steps}, loss {loss.item():.3f}", file=sys.stderr)
    return {name: value.to(torch.float16) for name, value in model.state_dict().items()}


def top1(weights: StateDict, images_BCHW: Tensor, labels: Tensor) -> float:
    """The fraction of images whose highest logit is their label, computed in fp32 with the given weights."""
    model = build_vit_digits().eval()
    model.load_state_dict({name: value.float() for name, value in weights.items()})
    with torch.no_grad():
        right = model(images_BCHW).argmax(dim=1) == labels
    return int(right.sum()) / len(labels)


def describe(seed: int, recipe: TrainingRecipe) -> dict[str, str]:
    """What the weights file says of itself. One key, because safetensors writes several in no fixed order."""
    return {"training": json.dumps({"seed": seed, "split": SPLIT, "recipe": asdict(recipe)}, sort_keys=True)}


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a new file beside `path`, then puts it in place; a failure leaves `path` as it was.

    Raises:
        UsageError: The folder is missing or cannot be written to.
    """
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}; name a file in another folder") from error
    partial = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        partial.chmod(0o644)
        partial.replace(path)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}; free the place or name another") from error
    finally:
        partial.unlink(missing_ok=True)


def pack_weights(weights: StateDict, metadata: Mapping[str, str]) -> bytes:
    """The content of a safetensors file."""
    return save(dict(weights), metadata=dict(metadata))


def pack_held_out(digits: Digits, split: DigitSplit) -> bytes:
    """The content of an npz file: the held-out scans as they are (8x8), their labels and their places."""
    content = io.BytesIO()
    np.savez_compressed(
        content,
        scans=digits.scans_BHW[split.held_out],
        labels=digits.labels[split.held_out].astype(np.uint8),
        places=split.held_out.astype(np.int16),
    )
    return content.getvalue()


def train_on_split(digits: Digits, split: DigitSplit, *, seed: int, recipe: TrainingRecipe) -> StateDict:
    """Trains on the training side of the split and nothing else."""
    images_BCHW = prepare(digits.scans_BHW[split.train])
    return train(images_BCHW, torch.from_numpy(digits.labels[split.train]), seed=seed, recipe=recipe)


def held_out_top1(weights: StateDict, digits: Digits, split: DigitSplit) -> float:
    """Top-1 on the held-out side of the split."""
    images_BCHW = prepare(digits.scans_BHW[split.held_out])
    return top1(weights, images_BCHW, torch.from_numpy(digits.labels[split.held_out]))


def require_place(path: Path) -> None:
    """Refuses a file that cannot be written before minutes are spent on its content.

    Raises:
        UsageError: The folder is missing, or a folder is in the file's place.
    """
    if not path.parent.is_dir():
        raise UsageError(f"cannot write {path}: no folder {path.parent}; create it or name another")
    if path.is_dir():
        raise UsageError(f"cannot write {path}: expected a file's name, got a folder; add the file's name")


def require_shipped_recipe(metadata: Mapping[str, str], shipped: Path = VIT_DIGITS_WEIGHTS) -> None:
    """Refuses to compare with weights that were made by another seed, split or recipe.

    Args:
        metadata: What the file would say of itself.
        shipped: The weights that ship.

    Raises:
        GateError: They were.
    """
    with safe_open(shipped, framework="pt") as file:
        recorded = file.metadata()
    if recorded != metadata:
        raise GateError(
            f"{shipped.name} was made by another recipe: expected {metadata}, got {recorded}; train it again"
        )


def compare_with_shipped(retrained: StateDict, digits: Digits, split: DigitSplit) -> None:
    """Prints how the retrained weights relate to the shipped ones.

    Equal weights are not asked for: other processors and library versions round differently, and training
    amplifies that.

    Raises:
        GateError: The two accuracies are too low or too far apart.
    """
    shipped = load_file(VIT_DIGITS_WEIGHTS)
    shipped_top1 = held_out_top1(shipped, digits, split)
    retrained_top1 = held_out_top1(retrained, digits, split)
    identical = all(torch.equal(shipped[name], value) for name, value in retrained.items())
    print(f"held-out top-1: shipped {shipped_top1:.4f}, retrained {retrained_top1:.4f}")
    print(f"identical weights: {'yes' if identical else 'no'}")
    require_close(shipped_top1, retrained_top1)


def require_close(shipped_top1: float, retrained_top1: float) -> None:
    """Holds both accuracies to `MINIMUM_TOP1` and to each other within `CHECK_TOLERANCE`.

    Raises:
        GateError: They do not hold.
    """
    apart = abs(shipped_top1 - retrained_top1)
    if min(shipped_top1, retrained_top1) < MINIMUM_TOP1 or apart > CHECK_TOLERANCE:
        raise GateError(
            f"held-out top-1: expected at least {MINIMUM_TOP1} twice, at most {CHECK_TOLERANCE} apart, got "
            f"{shipped_top1:.4f} shipped and {retrained_top1:.4f} retrained; train with --out and ship that"
        )


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.train_vit_digits", description="Train vit_digits.")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--out", type=Path, metavar="FILE", help="write the weights here (.safetensors)")
    action.add_argument("--check", action="store_true", help="retrain and compare with what ships")
    parser.add_argument("--scans", type=Path, metavar="FILE", help="also write the held-out scans (.npz)")
    parser.add_argument("--seed", type=int, default=0, help="of all that is random (default 0)")
    parser.add_argument("--steps", type=int, default=TrainingRecipe.steps, help="default %(default)s")
    options = parser.parse_args(arguments)
    if options.steps < 1:
        parser.error(f"--steps: expected at least 1, got {options.steps}")
    if options.check and options.scans:
        parser.error("--check writes nothing: leave out --scans")
    return options


def check(options: argparse.Namespace) -> None:
    """Retrains and compares with what ships."""
    digits, recipe = read_digits(), TrainingRecipe(steps=options.steps)
    require_shipped_recipe(describe(options.seed, recipe))
    split = split_digits(digits.labels)
    compare_with_shipped(train_on_split(digits, split, seed=options.seed, recipe=recipe), digits, split)


def write(options: argparse.Namespace) -> None:
    """Trains, writes, and prints the accuracy of what was written."""
    require_place(options.out)
    digits, recipe = read_digits(), TrainingRecipe(steps=options.steps)
    split = split_digits(digits.labels)
    if options.scans:
        require_place(options.scans)
        write_atomically(options.scans, pack_held_out(digits, split))
    weights = train_on_split(digits, split, seed=options.seed, recipe=recipe)
    write_atomically(options.out, pack_weights(weights, describe(options.seed, recipe)))
    accuracy = held_out_top1(load_file(options.out), digits, split)
    print(f"held-out top-1: {accuracy:.4f} on {len(split.held_out)} scans")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    options = parse_arguments(arguments)
    return exit_status(lambda: check(options) if options.check else write(options))


if __name__ == "__main__":
    sys.exit(main())
