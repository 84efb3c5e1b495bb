"""The embedded two-tower model: captions by their formula, texts as token ids, towers that know the held-out scans."""

import math
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from exporter.anatomy import examine
from exporter.capture import capture
from exporter.errors import UsageError, WeightsError
from exporter.models import LoadedModel, ModelRequest, load, preprocess_image, shipped_data
from exporter.models.request import Tower
from exporter.models.shipped.clip_digits import CLIP_DIGITS_WEIGHTS
from exporter.models.shipped.digit_texts import (
    CONTEXT,
    DIGIT_WORDS,
    SLANTS,
    TEMPLATES,
    VOCABULARY,
    WEIGHTS,
    WIDTHS,
    caption,
    caption_scans,
    tokenize_words,
)
from exporter.models.shipped.digits import held_out_scans

THREE_MEGABYTES = 3_000_000


@cache
def tower(name: Tower) -> LoadedModel:
    return load(ModelRequest(model="clip_digits", tower=name))


def scan(rows: list[str]) -> npt.NDArray[np.uint8]:
    """A scan from 8 rows of 8 letters: `#` is a dark cell, `+` half of one, `.` none."""
    ink = {"#": 16, "+": 8, ".": 0}
    return np.array([[[ink[cell] for cell in row] for row in rows]], dtype=np.uint8)


def filled(cells: int) -> npt.NDArray[np.uint8]:
    """A scan with this many dark cells, row by row."""
    return (np.arange(64).reshape(1, 8, 8) < cells).astype(np.uint8) * 16


@pytest.mark.parametrize(
    ("cells", "word"),
    [
        pytest.param(18, "thin", id="18 cells"),
        pytest.param(19, "regular", id="19 cells"),
        pytest.param(20, "regular", id="20 cells"),
        pytest.param(21, "bold", id="21 cells"),
    ],
)
def test_weight_is_the_number_of_dark_cells(cells: int, word: str) -> None:
    (text,) = caption_scans(filled(cells), np.array([0]))

    assert text.split()[1] == word


@pytest.mark.parametrize(
    ("row", "word"),
    [
        pytest.param("..####..", "narrow", id="variance 15/12, deviation 1.118"),
        pytest.param(".+###+..", "medium", id="variance 6/4, deviation 1.225"),
        pytest.param(".#####..", "wide", id="variance 2, deviation 1.414"),
    ],
)
def test_width_is_the_standard_deviation_of_the_columns(row: str, word: str) -> None:
    (text,) = caption_scans(scan([row] * 8), np.array([0]))

    assert text.split()[2] == word


@pytest.mark.parametrize(
    ("shift", "phrase"),
    [
        pytest.param(-1, "leaning right", id="towards the left on the way down"),
        pytest.param(0, "standing upright", id="straight down"),
        pytest.param(1, "leaning left", id="towards the right on the way down"),
    ],
)
def test_slant_is_where_the_top_leans(shift: int, phrase: str) -> None:
    rows = [
        "".join("#" if column == 4 + shift * (row // 2 - 2) else "." for column in range(8))
        for row in range(8)
    ]

    (text,) = caption_scans(scan(rows), np.array([0]))

    assert text.endswith(phrase)


def test_captions_of_the_held_out_scans_follow_from_their_covariance() -> None:
    scans = held_out_scans()
    rows, columns = np.mgrid[:8, :8]

    for ink_HW, label, text in zip(
        scans.scans_BHW, scans.labels, caption_scans(scans.scans_BHW, scans.labels), strict=True
    ):
        (xx, xy), (_, yy) = np.cov(columns.ravel(), rows.ravel(), aweights=ink_HW.ravel(), ddof=0)
        weight = np.searchsorted((18.5, 20.5), ink_HW.sum() / 16, side="right")
        width = np.searchsorted((1.2, 1.32), math.sqrt(xx), side="right")
        slant = np.searchsorted((-0.08, 0.08), -xy / yy, side="right")
        looks = f"{WEIGHTS[weight]} {WIDTHS[width]}"
        assert text == f"a {looks} scan of the digit {DIGIT_WORDS[label]} {SLANTS[slant]}"


def test_tokens_are_a_start_the_words_an_end_and_padding() -> None:
    (ids,) = tokenize_words(["The DIGIT, seven!"])

    assert [VOCABULARY[place] for place in ids] == ["<start>", "the", "digit", "seven", "<end>"] + [
        "<pad>"
    ] * 11
    assert ids.dtype == np.int64


def test_every_word_has_one_id() -> None:
    assert len(set(VOCABULARY)) == len(VOCABULARY)


def test_every_prompt_and_caption_fits_and_differs_in_tokens_from_all_others() -> None:
    prompts = [template.format(word) for template in TEMPLATES for word in DIGIT_WORDS]
    captions = [
        caption(*place) for place in np.ndindex(len(DIGIT_WORDS), len(WEIGHTS), len(WIDTHS), len(SLANTS))
    ]

    ids = tokenize_words(prompts + captions)

    assert ids.shape == (60 + 270, CONTEXT)
    assert len(np.unique(ids, axis=0)) == 330


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("a scan of a cat", '"cat" in "a scan of a cat"', id="unknown word"),
        pytest.param("the digit sevn", 'Did you mean "seven"?', id="misspelt word"),
        pytest.param("the digit <pad>", '"pad"', id="mark of the vocabulary"),
        pytest.param("...", "1 to 14 words, got 0", id="no word"),
        pytest.param("a " * 15, "1 to 14 words, got 15", id="too many words"),
    ],
)
def test_a_text_that_the_model_cannot_read_is_refused_not_guessed(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        tokenize_words(["the digit seven", text])

    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_texts_are_no_rows() -> None:
    assert tokenize_words([]).shape == (0, CONTEXT)


def test_shipped_weights_are_fp16_and_at_most_three_megabytes() -> None:
    weights = load_file(CLIP_DIGITS_WEIGHTS)

    assert {value.dtype for value in weights.values()} == {torch.float16}
    assert CLIP_DIGITS_WEIGHTS.stat().st_size <= THREE_MEGABYTES


def test_towers_bring_their_weights_and_say_what_they_take() -> None:
    image, text = tower("image"), tower("text")

    assert (image.weights_kind, image.source, image.id, image.name) == (
        "embedded",
        "exporter",
        "clip_digits",
        "clip_digits",
    )
    assert (next(iter(image.inputs)), image.example_input.shape, image.tokenize) == (
        "images",
        (3, 32, 32),
        None,
    )
    assert (text.name, next(iter(text.inputs)), text.example_input.shape) == (
        "clip_digits-text",
        "input_ids",
        (16,),
    )
    assert (text.example_input.dtype, text.example_input.vocabulary) == (torch.int64, len(VOCABULARY))
    assert image.output_names == text.output_names == ("embedding",)
    assert image.weights_sha256 != text.weights_sha256


def test_a_weights_file_holds_both_towers(tmp_path: Path) -> None:
    towers: dict[str, nn.Module] = {}
    for name in ("image", "text"):
        drawn = load(ModelRequest(model="clip_digits", weights="random", tower=name))
        assert isinstance(drawn.module, nn.Module)
        towers[name] = drawn.module
    both = nn.ModuleDict(towers).state_dict()
    save_file(both, tmp_path / "both.safetensors")
    save_file(towers["image"].state_dict(), tmp_path / "one.safetensors")

    again = load(ModelRequest(model="clip_digits", weights=str(tmp_path / "both.safetensors"), tower="text"))

    assert isinstance(again.module, nn.Module)
    assert all(torch.equal(value, both[f"text.{name}"]) for name, value in again.module.state_dict().items())
    with pytest.raises(WeightsError, match="missing: image"):
        load(ModelRequest(model="clip_digits", weights=str(tmp_path / "one.safetensors")))


def test_another_image_size_is_refused() -> None:
    with pytest.raises(UsageError, match="32 pixel images only"):
        load(ModelRequest(model="clip_digits", image_size=64))


def test_the_image_tower_is_captured_with_65_tokens_that_can_merge_in_6_blocks() -> None:
    loaded = tower("image")

    anatomy = examine(capture(loaded.module, torch.zeros(2, 3, 32, 32)).graph_module)

    geometry = anatomy.geometry
    assert (geometry.tokens, geometry.protected, geometry.blocks) == (65, 1, 6)
    anatomy.check_mergeable((4, 4, 4, 4, 4, 4))


def test_the_text_tower_is_captured_with_a_free_batch() -> None:
    loaded = tower("text")
    assert isinstance(loaded.module, nn.Module)
    ids = torch.from_numpy(tokenize_words(["the digit one", "the digit two", "a scan of the digit six"]))

    program = capture(loaded.module, torch.zeros((2, CONTEXT), dtype=torch.int64))

    with torch.no_grad():
        (embedding,) = program.graph_module(ids)
        torch.testing.assert_close(embedding, loaded.module(ids), rtol=1e-5, atol=1e-5)


def embed(
    images: npt.NDArray[np.uint8] | None = None, texts: list[str] | None = None
) -> npt.NDArray[np.float64]:
    """Normalised embeddings of images (n, H, W, 3) or texts, by the shipped weights."""
    loaded = tower("image" if texts is None else "text")
    assert isinstance(loaded.module, nn.Module)
    if texts is not None:
        assert loaded.tokenize is not None
        inputs = torch.from_numpy(loaded.tokenize(texts))
    else:
        assert images is not None and loaded.preprocess is not None
        pictures = [preprocess_image(Image.fromarray(image), loaded.preprocess) for image in images]
        inputs = torch.from_numpy(np.stack(pictures))
    with torch.no_grad():
        embedding = loaded.module(inputs).double().numpy()
    normalised: npt.NDArray[np.float64] = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
    return normalised


def test_shipped_towers_know_the_held_out_scans_by_prompt_and_by_caption() -> None:
    shipped = shipped_data(ModelRequest(model="clip_digits"))
    assert shipped is not None and shipped.class_names is not None and shipped.captions is not None
    images = embed(shipped.images_BHWC)

    prompts = [[template.format(name) for template in shipped.templates] for name in shipped.class_names]
    classes = np.stack([embed(texts=texts).mean(axis=0) for texts in prompts])
    predicted = (images @ (classes / np.linalg.norm(classes, axis=1, keepdims=True)).T).argmax(axis=1)
    texts = sorted(set(shipped.captions))
    nearest = (images @ embed(texts=texts).T).argmax(axis=1)

    assert np.mean(predicted == shipped.labels) >= 0.96
    assert len(texts) > 100  # guessing among those would be right 1 time in 100
    assert np.mean([texts[place] == own for place, own in zip(nearest, shipped.captions, strict=True)]) >= 0.5
