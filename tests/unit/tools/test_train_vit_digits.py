"""The training tool: an honest split, the same weights from one seed, nothing left behind by a failure."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from exporter.errors import UsageError
from exporter.models.shipped.digits import HELD_OUT_SCANS
from tools.train_vit_digits import (
    BACKGROUND,
    TrainingRecipe,
    draw_batches,
    jitter,
    learning_rate_factor,
    main,
    pack_held_out,
    read_digits,
    split_digits,
    train,
    write_atomically,
)

TINY = TrainingRecipe(steps=2, batch_size=8, warmup_steps=1)


def random_images() -> torch.Tensor:
    return torch.rand(24, 3, 32, 32, generator=torch.Generator().manual_seed(5)) * 2 - 1


def train_tiny(seed: int) -> dict[str, torch.Tensor]:
    return train(random_images(), torch.arange(24) % 10, seed=seed, recipe=TINY)


def test_split_is_disjoint_and_covers_all_scans() -> None:
    split = split_digits(read_digits().labels)

    assert len(split.held_out) >= 450
    np.testing.assert_array_equal(np.sort(np.concatenate([split.train, split.held_out])), np.arange(1797))


def test_split_holds_out_a_quarter_of_every_digit() -> None:
    labels = read_digits().labels

    held_out = np.bincount(labels[split_digits(labels).held_out])

    np.testing.assert_array_equal(held_out, np.ceil(np.bincount(labels) / 4))


def test_no_held_out_scan_has_a_twin_in_the_training_scans() -> None:
    digits = read_digits()
    split = split_digits(digits.labels)

    trained_on = {scan.tobytes() for scan in digits.scans_BHW[split.train]}
    held_out = {scan.tobytes() for scan in digits.scans_BHW[split.held_out]}

    assert trained_on.isdisjoint(held_out)


def test_shipped_scans_are_the_held_out_side_of_the_split() -> None:
    with np.load(HELD_OUT_SCANS) as archive:
        places = archive["places"]

    np.testing.assert_array_equal(places, split_digits(read_digits().labels).held_out)


def test_packing_the_held_out_scans_gives_the_same_bytes_every_time() -> None:
    digits = read_digits()
    split = split_digits(digits.labels)

    assert pack_held_out(digits, split) == pack_held_out(digits, split)


def test_one_seed_gives_identical_weights_and_another_others_and_torch_is_as_it_was() -> None:
    torch.manual_seed(1)
    first = train_tiny(seed=3)
    torch.manual_seed(2)
    state, strict = torch.get_rng_state(), torch.are_deterministic_algorithms_enabled()
    threads = torch.get_num_threads()

    second = train_tiny(seed=3)

    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["head.weight"], train_tiny(seed=4)["head.weight"])
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == (threads, strict)
    assert torch.equal(torch.get_rng_state(), state)


def test_an_epoch_visits_no_image_twice() -> None:
    recipe = TrainingRecipe(steps=3, batch_size=8)

    places = torch.cat(list(draw_batches(24, recipe, torch.Generator().manual_seed(0))))

    assert sorted(places.tolist()) == list(range(24))


def test_batches_are_exactly_the_budget_when_epochs_do_not_divide_it() -> None:
    recipe = TrainingRecipe(steps=7, batch_size=10)

    sizes = [len(batch) for batch in draw_batches(24, recipe, torch.Generator().manual_seed(0))]

    assert sizes == [10] * 7


def test_jitter_without_any_range_is_the_identity() -> None:
    still = TrainingRecipe(rotation_degrees=0.0, scale=0.0, shift=0.0)

    moved = jitter(random_images(), still, torch.Generator())

    torch.testing.assert_close(moved, random_images(), rtol=0.0, atol=1e-5)


def test_jitter_fills_with_background() -> None:
    black = torch.full((4, 3, 32, 32), BACKGROUND)

    moved = jitter(black, TrainingRecipe(shift=0.5), torch.Generator().manual_seed(0))

    torch.testing.assert_close(moved, black, rtol=0.0, atol=0.0)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        pytest.param(0, 0.1, id="first warm-up step"),
        pytest.param(10, 1.0, id="peak"),
        pytest.param(60, 0.5, id="half way down"),
        pytest.param(110, 0.0, id="end"),
    ],
)
def test_learning_rate_warms_up_then_follows_half_a_cosine(step: int, expected: float) -> None:
    factor = learning_rate_factor(TrainingRecipe(steps=110, warmup_steps=10))

    assert factor(step) == pytest.approx(expected, abs=1e-12)


def test_command_writes_fp16_weights_and_prints_the_accuracy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "weights.safetensors"

    assert main(["--out", str(path), "--steps", "1", "--seed", "7"]) == 0

    assert {value.dtype for value in load_file(path).values()} == {torch.float16}
    assert capsys.readouterr().out.startswith("held-out top-1: ")
    assert list(tmp_path.iterdir()) == [path]


def test_writing_over_a_folder_leaves_no_partial_file(tmp_path: Path) -> None:
    folder = tmp_path / "weights.safetensors"
    folder.mkdir()

    with pytest.raises(UsageError, match="cannot write"):
        write_atomically(folder, b"content")

    assert list(tmp_path.iterdir()) == [folder]
