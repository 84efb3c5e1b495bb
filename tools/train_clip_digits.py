"""Trains the embedded two-tower model, `clip_digits`, from its seed.

    python -m tools.train_clip_digits --out exporter/models/shipped/assets/clip_digits.safetensors
    python -m tools.train_clip_digits --check

In: the scans and the split of `tools.train_vit_digits`; the held-out scans take no part in training or in choosing
anything. Out: the fp16 weights of both towers. Every picture meets one text: its full caption (`digit_texts`), or a
template with its digit. A text that is true of several pictures of a batch is no false answer for any of them: both
directions of the contrastive loss are asked for all true pairs alike. Captions say how a picture looks after it was
moved: an affine map takes first and second moments along exactly. The same seed, machine and library versions give
the same bytes.

Shape suffixes: B pictures of a batch, T texts of a batch, C channels, H height, W width.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from exporter.errors import GateError
from exporter.models.shipped.clip_digits import CLIP_DIGITS_WEIGHTS, ClipDigits
from exporter.models.shipped.digit_texts import (
    DIGIT_WORDS,
    TEMPLATES,
    ScanMoments,
    caption,
    looks_of,
    scan_moments,
    tokenize_words,
)
from tools.command_line import exit_status
from tools.train_vit_digits import (
    SPLIT,
    Digits,
    DigitSplit,
    StateDict,
    TrainingRecipe,
    deterministic,
    draw_affine_maps,
    draw_batches,
    learning_rate_factor,
    move,
    pack_weights,
    prepare,
    read_digits,
    require_place,
    require_shipped_recipe,
    split_digits,
    write_atomically,
)

MINIMUM_TOP1 = 0.96
CHECK_TOLERANCE = 0.02
ANY = -1

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class ContrastiveRecipe:
    """The fixed budget: AdamW over both towers, cosine similarity over a fixed temperature.

    Attributes:
        training: Steps, batches, learning rate and how pictures are moved.
        temperature: What cosines are divided by.
        caption_share: How many of the texts are full captions; the others are templates.
    """

    training: TrainingRecipe = field(
        default_factory=lambda: TrainingRecipe(
            steps=800, label_smoothing=0.0, rotation_degrees=8.0, scale=0.06, shift=0.06
        )
    )
    temperature: float = 0.07
    caption_share: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Scans to train on: float32 (B, 3, 32, 32) normalised, int64 (B,) digits, the moments of the 8x8 scans."""

    images_BCHW: Tensor
    labels: npt.NDArray[np.int64]
    moments: ScanMoments


def pictures_of(digits: Digits, places: npt.NDArray[np.int64]) -> Pictures:
    """The scans at these places of the data set."""
    scans_BHW = digits.scans_BHW[places]
    return Pictures(
        images_BCHW=prepare(scans_BHW), labels=digits.labels[places], moments=scan_moments(scans_BHW)
    )


def moved_moments(moments: ScanMoments, maps_B23: npt.NDArray[np.float64]) -> ScanMoments:
    """The moments of pictures after `move` with these maps: ink times |det A|, covariance A S A^T.

    Args:
        moments: Before.
        maps_B23: From places after to places before, so that A is the inverse of a map's left part.
    """
    forward_B22 = np.linalg.inv(maps_B23[:, :, :2])
    return ScanMoments(
        ink=moments.ink * np.abs(np.linalg.det(forward_B22)),
        covariance_B22=forward_B22 @ moments.covariance_B22 @ forward_B22.transpose(0, 2, 1),
    )


def describe_pictures(moments: ScanMoments, labels: npt.NDArray[np.int64]) -> Rows:
    """Digit, weight, width and slant of every picture: int64 (B, 4)."""
    looks = looks_of(moments)
    return np.stack([labels, looks.weight, looks.width, looks.slant], axis=1)


def draw_texts(facts_B4: Rows, share: float, generator: torch.Generator) -> tuple[list[str], Rows]:
    """One text per picture, and what it says: int64 (T, 4) with `ANY` where it says nothing."""
    is_caption = torch.rand(len(facts_B4), generator=generator).numpy() < share
    template = torch.randint(len(TEMPLATES), (len(facts_B4),), generator=generator).tolist()
    texts = [
        caption(*facts) if full else TEMPLATES[which].format(DIGIT_WORDS[facts[0]])
        for facts, full, which in zip(facts_B4.tolist(), is_caption, template, strict=True)
    ]
    said_T4 = facts_B4.copy()
    said_T4[~is_caption, 1:] = ANY
    return texts, said_T4


def true_pairs(facts_B4: Rows, said_T4: Rows) -> Tensor:
    """Which texts are true of which pictures: float32 (B, T) of 0 and 1."""
    agrees_BT4 = (facts_B4[:, None] == said_T4[None]) | (said_T4[None] == ANY)
    return torch.from_numpy(agrees_BT4.all(axis=2)).float()


def contrastive_loss(similarity_BT: Tensor, true_BT: Tensor) -> Tensor:
    """Symmetric InfoNCE: cross-entropy with equal weight on all true partners, averaged over both directions."""

    def one_way(similarity: Tensor, true: Tensor) -> Tensor:
        return functional.cross_entropy(similarity, true / true.sum(dim=1, keepdim=True))

    return (one_way(similarity_BT, true_BT) + one_way(similarity_BT.T, true_BT.T)) / 2


@torch.no_grad()
def draw_initial_weights(model: nn.Module) -> None:
    """Xavier for matrices, N(0, 0.3) for class token and positions: at timm's 0.02 all pictures start alike."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
    for name, parameter in model.named_parameters():
        if name.endswith(("cls_token", "pos_embed", "positions")):
            nn.init.normal_(parameter, std=0.3)


def train(pictures: Pictures, *, seed: int, recipe: ContrastiveRecipe) -> dict[str, Tensor]:
    """Trains both towers from scratch for the whole budget.

    Args:
        pictures: The training side of the split.
        seed: Of the initial weights, the order of the data, the random maps and the choice of texts.
        recipe: The budget.

    Returns:
        The weights after the last step, rounded to fp16.
    """
    budget = recipe.training
    with deterministic(seed):
        generator = torch.Generator().manual_seed(seed)
        model = ClipDigits().train()
        draw_initial_weights(model)
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=budget.learning_rate, weight_decay=budget.weight_decay
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, learning_rate_factor(budget))
        batches = draw_batches(len(pictures.labels), budget, generator)
        for step, batch in enumerate(batches, start=1):
            loss = batch_loss(model, pictures, batch, recipe, generator)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            if step % 100 == 0:
                print(f"step {step}/{budget.steps}, loss {loss.item():.3f}", file=sys.stderr)
    return {name: value.to(torch.float16) for name, value in model.state_dict().items()}


def batch_loss(
    model: ClipDigits,
    pictures: Pictures,
    batch: Tensor,
    recipe: ContrastiveRecipe,
    generator: torch.Generator,
) -> Tensor:
    """The loss of the pictures at these places, each moved and given a text."""
    places = batch.numpy()
    maps_B23 = draw_affine_maps(len(places), recipe.training, generator)
    before = ScanMoments(
        ink=pictures.moments.ink[places], covariance_B22=pictures.moments.covariance_B22[places]
    )
    facts_B4 = describe_pictures(moved_moments(before, maps_B23.double().numpy()), pictures.labels[places])
    texts, said_T4 = draw_texts(facts_B4, recipe.caption_share, generator)
    image_BC = functional.normalize(model.image(move(pictures.images_BCHW[batch], maps_B23)), dim=1)
    text_TC = functional.normalize(model.text(torch.from_numpy(tokenize_words(texts))), dim=1)
    return contrastive_loss(image_BC @ text_TC.T / recipe.temperature, true_pairs(facts_B4, said_T4))


@torch.no_grad()
def zero_shot_top1(weights: StateDict, images_BCHW: Tensor, labels: npt.NDArray[np.int64]) -> float:
    """The fraction of images whose nearest digit is their label.

    A digit is the mean of its normalised template embeddings, normalised; nearest is by cosine, in fp32.
    """
    model = ClipDigits().eval()
    model.load_state_dict({name: value.float() for name, value in weights.items()})
    classes = []
    for word in DIGIT_WORDS:
        ids = torch.from_numpy(tokenize_words([template.format(word) for template in TEMPLATES]))
        classes.append(functional.normalize(model.text(ids), dim=1).mean(dim=0))
    classes_KC = functional.normalize(torch.stack(classes), dim=1)
    nearest = (model.image(images_BCHW) @ classes_KC.T).argmax(dim=1).numpy()
    return float(np.mean(nearest == labels))


def held_out_top1(weights: StateDict, digits: Digits, split: DigitSplit) -> float:
    """Zero-shot top-1 on the held-out side of the split."""
    return zero_shot_top1(weights, prepare(digits.scans_BHW[split.held_out]), digits.labels[split.held_out])


def describe(seed: int, recipe: ContrastiveRecipe) -> dict[str, str]:
    """What the weights file says of itself. One key, because safetensors writes several in no fixed order."""
    return {"training": json.dumps({"seed": seed, "split": SPLIT, "recipe": asdict(recipe)}, sort_keys=True)}


def recipe_of(steps: int) -> ContrastiveRecipe:
    """The default recipe with another number of steps."""
    default = ContrastiveRecipe().training
    return ContrastiveRecipe(training=TrainingRecipe(**{**asdict(default), "steps": steps}))


def train_on_split(
    digits: Digits, split: DigitSplit, *, seed: int, recipe: ContrastiveRecipe
) -> Mapping[str, Tensor]:
    """Trains on the training side of the split and nothing else."""
    return train(pictures_of(digits, split.train), seed=seed, recipe=recipe)


def require_close(shipped_top1: float, retrained_top1: float) -> None:
    """Holds both accuracies to `MINIMUM_TOP1` and to each other within `CHECK_TOLERANCE`.

    Raises:
        GateError: They do not hold.
    """
    apart = abs(shipped_top1 - retrained_top1)
    if min(shipped_top1, retrained_top1) < MINIMUM_TOP1 or apart > CHECK_TOLERANCE:
        raise GateError(
            f"held-out zero-shot top-1: expected at least {MINIMUM_TOP1} twice, at most {CHECK_TOLERANCE} apart, "
            f"got {shipped_top1:.4f} shipped and {retrained_top1:.4f} retrained; train with --out and ship that"
        )


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.train_clip_digits", description="Train clip_digits."
    )
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--out", type=Path, metavar="FILE", help="write the weights here (.safetensors)")
    action.add_argument("--check", action="store_true", help="retrain and compare with what ships")
    parser.add_argument("--seed", type=int, default=0, help="of all that is random (default 0)")
    steps = ContrastiveRecipe().training.steps
    parser.add_argument("--steps", type=int, default=steps, help="default %(default)s")
    options = parser.parse_args(arguments)
    if options.steps < 1:
        parser.error(f"--steps: expected at least 1, got {options.steps}")
    return options


def check(options: argparse.Namespace) -> None:
    """Retrains and compares with what ships.

    Equal weights are not asked for: other processors and library versions round differently.

    Raises:
        GateError: Another recipe made what ships, or the accuracies are too low or too far apart.
    """
    recipe = recipe_of(options.steps)
    require_shipped_recipe(describe(options.seed, recipe), CLIP_DIGITS_WEIGHTS)
    digits = read_digits()
    split = split_digits(digits.labels)
    retrained = train_on_split(digits, split, seed=options.seed, recipe=recipe)
    shipped = load_file(CLIP_DIGITS_WEIGHTS)
    shipped_top1 = held_out_top1(shipped, digits, split)
    retrained_top1 = held_out_top1(retrained, digits, split)
    identical = all(torch.equal(shipped[name], value) for name, value in retrained.items())
    print(f"held-out zero-shot top-1: shipped {shipped_top1:.4f}, retrained {retrained_top1:.4f}")
    print(f"identical weights: {'yes' if identical else 'no'}")
    require_close(shipped_top1, retrained_top1)


def write(options: argparse.Namespace) -> None:
    """Trains, writes, and prints the zero-shot accuracy of what was written."""
    require_place(options.out)
    digits, recipe = read_digits(), recipe_of(options.steps)
    split = split_digits(digits.labels)
    weights = train_on_split(digits, split, seed=options.seed, recipe=recipe)
    write_atomically(options.out, pack_weights(weights, describe(options.seed, recipe)))
    accuracy = held_out_top1(load_file(options.out), digits, split)
    print(f"held-out zero-shot top-1: {accuracy:.4f} on {len(split.held_out)} scans")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    options = parse_arguments(arguments)
    return exit_status(lambda: check(options) if options.check else write(options))


if __name__ == "__main__":
    sys.exit(main())
