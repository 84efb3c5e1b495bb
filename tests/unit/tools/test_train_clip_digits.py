"""The contrastive tool: true answers are never false ones, moved scans keep true captions, one seed one file."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch.nn import functional

from exporter.models.shipped.clip_digits import CLIP_DIGITS_WEIGHTS
from exporter.models.shipped.digit_texts import DIGIT_WORDS, SLANTS, ScanMoments, looks_of, scan_moments
from tools.train_clip_digits import (
    ANY,
    ContrastiveRecipe,
    Pictures,
    contrastive_loss,
    describe_pictures,
    draw_texts,
    main,
    moved_moments,
    pictures_of,
    train,
    train_on_split,
    true_pairs,
)
from tools.train_vit_digits import TrainingRecipe, move, read_digits, split_digits

Array = np.ndarray[Any, np.dtype[Any]]

TINY = ContrastiveRecipe(training=TrainingRecipe(steps=2, batch_size=8, warmup_steps=1))


def some_pictures() -> Pictures:
    return pictures_of(read_digits(), np.arange(24))


def train_tiny(seed: int) -> dict[str, torch.Tensor]:
    return train(some_pictures(), seed=seed, recipe=TINY)


def round_blob() -> ScanMoments:
    return ScanMoments(ink=np.array([20.0]), covariance_B22=np.array([[[2.0, 0.0], [0.0, 2.0]]]))


def affine_map(left: list[list[float]]) -> Array:
    """A map of one picture without shift, as `move` takes it."""
    return np.array([[[*row, 0.0] for row in left]])


def test_one_seed_gives_identical_weights_and_another_others() -> None:
    torch.manual_seed(1)
    first = train_tiny(seed=3)
    torch.manual_seed(2)
    second, other = train_tiny(seed=3), train_tiny(seed=4)

    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["image.head.weight"], other["image.head.weight"])
    assert not torch.equal(first["text.head.weight"], other["text.head.weight"])


def test_a_text_is_true_of_every_picture_that_it_does_not_contradict() -> None:
    facts = np.array([[7, 0, 1, 2], [7, 0, 1, 2], [7, 2, 1, 2], [3, 0, 1, 2]])
    said = np.array([[7, 0, 1, 2], [7, ANY, ANY, ANY], [7, 2, 1, 2], [3, ANY, ANY, ANY]])

    expected = [[1, 1, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 1]]
    assert true_pairs(facts, said).tolist() == expected


def test_loss_without_duplicates_is_the_mean_of_both_cross_entropies() -> None:
    similarity = torch.randn(5, 5, generator=torch.Generator().manual_seed(0))
    answers = torch.arange(5)

    expected = functional.cross_entropy(similarity, answers) + functional.cross_entropy(similarity.T, answers)
    torch.testing.assert_close(contrastive_loss(similarity, torch.eye(5)), expected / 2, rtol=1e-6, atol=1e-6)


def test_loss_of_knowing_nothing_is_the_logarithm_of_the_choices() -> None:
    loss = contrastive_loss(torch.zeros(8, 8), torch.eye(8))

    assert loss.item() == pytest.approx(math.log(8), abs=1e-6)


def test_a_duplicate_that_scores_like_the_original_costs_only_the_choice_between_them() -> None:
    true = torch.block_diag(torch.ones(2, 2), torch.ones(2, 2))

    assert contrastive_loss(100.0 * true, true).item() == pytest.approx(math.log(2), abs=1e-6)
    assert contrastive_loss(100.0 * torch.eye(4), true).item() > 10


def test_texts_are_captions_or_templates_and_say_what_is_true() -> None:
    facts = describe_pictures(some_pictures().moments, some_pictures().labels)
    captions, said_by_captions = draw_texts(facts, 1.0, torch.Generator().manual_seed(0))
    prompts, said_by_prompts = draw_texts(facts, 0.0, torch.Generator().manual_seed(0))

    assert all(any(slant in text for slant in SLANTS) for text in captions)
    assert not any(slant in text for slant in SLANTS for text in prompts)
    assert all(DIGIT_WORDS[digit] in text.split() for digit, text in zip(facts[:, 0], prompts, strict=True))
    np.testing.assert_array_equal(said_by_captions, facts)
    np.testing.assert_array_equal(said_by_prompts[:, 0], facts[:, 0])
    assert set(said_by_prompts[:, 1:].ravel().tolist()) == {ANY}


@pytest.mark.parametrize(
    ("left", "ink", "covariance"),
    [
        pytest.param([[1, 0], [0, 1]], 20.0, [[2, 0], [0, 2]], id="not moved"),
        pytest.param([[2, 0], [0, 2]], 5.0, [[0.5, 0], [0, 0.5]], id="half the size"),
        pytest.param([[0.5, 0], [0, 1]], 40.0, [[8, 0], [0, 2]], id="twice as wide"),
        pytest.param([[1, 1], [0, 1]], 20.0, [[4, -2], [-2, 2]], id="sheared to the right"),
    ],
)
def test_moments_follow_the_map(left: list[list[float]], ink: float, covariance: list[list[float]]) -> None:
    moved = moved_moments(round_blob(), affine_map(left))

    assert moved.ink[0] == pytest.approx(ink)
    np.testing.assert_allclose(moved.covariance_B22[0], covariance, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("left", "phrase"),
    [
        pytest.param([[1.0, 0.4], [0.0, 1.0]], "leaning right", id="sheared to the right"),
        pytest.param([[1.0, -0.4], [0.0, 1.0]], "leaning left", id="sheared to the left"),
    ],
)
def test_moments_agree_with_the_picture_that_moves(left: list[list[float]], phrase: str) -> None:
    picture = torch.full((1, 3, 32, 32), -1.0)
    picture[..., 8:24, 14:18] = 1.0  # an upright bar, 16 pixels high and 4 wide
    maps = affine_map(left)
    before = scan_moments(np.where(picture[:, 0, 2::4, 2::4].numpy() > 0, 16, 0).astype(np.uint8))

    moved = move(picture, torch.from_numpy(maps).float())
    ink = (moved[0, 0].numpy() + 1.0) / 2.0
    rows, columns = np.mgrid[:32, :32]
    (_, xy), (_, yy) = np.cov(columns.ravel(), rows.ravel(), aweights=ink.ravel(), ddof=0)
    predicted = moved_moments(before, maps)

    assert predicted.covariance_B22[0, 0, 1] / predicted.covariance_B22[0, 1, 1] == pytest.approx(
        xy / yy, abs=0.02
    )
    assert SLANTS[looks_of(predicted).slant[0]] == phrase


def test_command_writes_fp16_weights_that_say_what_made_them_and_prints_the_accuracy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "weights.safetensors"

    status = main(["--out", str(path), "--steps", "1", "--seed", "7"])

    assert status == 0
    assert {value.dtype for value in load_file(path).values()} == {torch.float16}
    with safe_open(path, framework="pt") as file:
        said = json.loads(file.metadata()["training"])
    assert (said["seed"], said["recipe"]["training"]["steps"]) == (7, 1)
    assert capsys.readouterr().out.startswith("held-out zero-shot top-1: ")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        pytest.param(0.0, 0, "identical weights: yes", id="the same"),
        pytest.param(1e-3, 0, "identical weights: no", id="slightly other, as from another processor"),
        pytest.param(10.0, 6, "identical weights: no", id="ruined"),
    ],
)
def test_check_compares_what_it_retrained_with_what_ships(
    change: float, status: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def retrain(*_arguments: object, **_options: object) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        shipped = load_file(CLIP_DIGITS_WEIGHTS)
        noise = {name: torch.randn(value.shape, generator=generator) for name, value in shipped.items()}
        return {name: value + (change * noise[name]).half() for name, value in shipped.items()}

    monkeypatch.setattr("tools.train_clip_digits.train_on_split", retrain)

    assert main(["--check"]) == status
    assert said in capsys.readouterr().out


def test_the_held_out_scans_take_no_part_in_training() -> None:
    digits = read_digits()
    split = split_digits(digits.labels)
    scans, labels = digits.scans_BHW.copy(), digits.labels.copy()
    scans[split.held_out], labels[split.held_out] = 1, 0

    honest = train_on_split(digits, split, seed=3, recipe=TINY)
    without = train_on_split(replace(digits, scans_BHW=scans, labels=labels), split, seed=3, recipe=TINY)

    assert all(torch.equal(honest[name], without[name]) for name in honest)
