"""`--preprocess FILE.json`: what a file may say, what it means for the load, and how it is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from exporter.errors import ModelUnavailableError, UsageError
from exporter.models import ModelRequest, Preprocess, load
from exporter.models.preprocessing.file import GIVEN, GUESSED, parse_document, take_preprocess
from exporter.models.pt2.source import SAYS_NOTHING

SHORT: dict[str, Any] = {"image_size": 32, "mean": [0.1, 0.2, 0.3], "std": [1, 0.5, 0.25]}
LONG: dict[str, Any] = SHORT | {
    "image_size": [32, 32],
    "interpolation": "lanczos",
    "crop_fraction": 0.5,
    "resize_mode": "pad",
    "to_rgb": "over_white",
    "channel_order": "rgb",
    "layout": "NCHW",
    "kernel": "torch",
    "fill": [1, 2, 3],
}
DIGITS = {"image_size": 28, "mean": [0.5], "std": [0.5]}


@pytest.fixture
def written(tmp_path: Path) -> Callable[[object], str]:
    """Gives the path of a file that holds a document, or a text as it is."""

    def write(document: object) -> str:
        path = tmp_path / "seen.json"
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        return str(path)

    return write


def test_three_keys_are_enough_and_the_rest_is_a_bicubic_centre_crop() -> None:
    assert parse_document(json.dumps(SHORT)) == Preprocess(
        image_size=(32, 32),
        interpolation="bicubic",
        crop_fraction=1.0,
        mean=(0.1, 0.2, 0.3),
        std=(1.0, 0.5, 0.25),
        resize_mode="crop",
        to_rgb="first",
        kernel="pil",
        fill=(0, 0, 0),
    )


def test_what_a_bundle_says_is_a_file_of_all_keys() -> None:
    assert parse_document(json.dumps(LONG)).to_dict() == LONG | {"std": [1.0, 0.5, 0.25]}


def test_the_channels_follow_from_the_numbers() -> None:
    gray = parse_document(json.dumps(DIGITS))
    assert (gray.channel_order, gray.fill, gray.input_shape) == ("gray", (0,), (1, 28, 28))


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        pytest.param("{", "not JSON", id="not JSON"),
        pytest.param("", "not JSON", id="empty"),
        pytest.param("[" * 100_000, "nested too deep|not JSON", id="deep"),
        pytest.param([1], "expected an object with the keys image_size, mean, std", id="a list"),
        pytest.param({}, "missing keys: image_size, mean, std", id="nothing"),
        pytest.param({"image_size": 32, "mean": [0] * 3}, "missing keys: std", id="no std"),
        pytest.param(SHORT | {"imagesize": 1}, 'imagesize.*Did you mean "image_size"', id="misspelled"),
        pytest.param(SHORT | {"x" * 5000: 1}, r"unknown key x+\.\.\.x+:", id="long key"),
        pytest.param(SHORT | {"mean": 0.5}, "mean: expected a list of numbers, got 0.5", id="one mean"),
        pytest.param(SHORT | {"mean": ["a"] * 3}, "mean: expected numbers from .* got a", id="text"),
        pytest.param(SHORT | {"mean": [True] * 3}, "mean: expected numbers", id="true"),
        pytest.param(SHORT | {"mean": [10**400] * 3}, r"mean: expected numbers .*\.\.\.", id="huge mean"),
        pytest.param(SHORT | {"image_size": 2**70}, "image_size: expected whole numbers from 1 to 4096", id="size"),
        pytest.param(SHORT | {"image_size": [32, 32.5]}, "image_size: expected whole numbers", id="half a pixel"),
        pytest.param(SHORT | {"image_size": [32]}, "image_size: expected height and width", id="one side"),
        pytest.param(SHORT | {"image_size": "32"}, "image_size: expected a list", id="size as text"),
        pytest.param(SHORT | {"interpolation": ["bicubic"]}, "interpolation: expected one of", id="filters"),
        pytest.param(SHORT | {"fill": [0, 0, 256]}, "fill: expected whole numbers from 0 to 255", id="fill"),
    ],
)  # fmt: skip
def test_a_file_that_says_something_else_is_refused_by_name(
    document: object, expected: str, written: Callable[[object], str]
) -> None:
    with pytest.raises(UsageError, match=rf'--preprocess ".*seen\.json": .*({expected})') as caught:
        load(ModelRequest(model="vit_digits", preprocess=written(document)))
    assert caught.value.exit_status == 2
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("path", "expected"),
    [pytest.param("none.json", "does not exist", id="missing"), pytest.param("", "is a folder", id="folder")],
)
def test_a_file_that_is_not_there_is_refused(path: str, expected: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"{expected}: expected a JSON file"):
        load(ModelRequest(model="vit_digits", preprocess=str(tmp_path / path)))


def test_a_file_replaces_what_the_source_says_and_sets_the_size(written: Callable[[object], str]) -> None:
    request = ModelRequest(model="timm:test_vit", weights="random", preprocess=written(SHORT))
    loaded = load(request)
    assert loaded.preprocess == parse_document(json.dumps(SHORT))
    assert loaded.example_input.shape == (3, 32, 32)
    assert loaded.notes == (GIVEN,)
    same = load(ModelRequest(model="timm:test_vit", weights="random", image_size=32))
    assert loaded.weights_sha256 == same.weights_sha256


def test_the_same_size_may_be_said_twice(written: Callable[[object], str]) -> None:
    file = written(SHORT)
    loaded = load(ModelRequest(model="timm:test_vit", weights="random", preprocess=file, image_size=32))
    assert loaded.preprocess == parse_document(json.dumps(SHORT))


def test_a_note_about_a_guess_gives_way_to_the_file() -> None:
    loaded = load(ModelRequest(model="vit_digits"))
    guessed = replace(loaded, notes=(f"{GUESSED}: as of its family", "other"))
    assert take_preprocess(guessed, None) == guessed
    assert take_preprocess(guessed, loaded.preprocess).notes == ("other", GIVEN)


@pytest.mark.parametrize(
    ("model", "document", "options", "expected"),
    [
        pytest.param(
            "vit_digits", SHORT, {"image_size": 28}, "32 pixels, got --image-size 28; leave", id="two sizes"
        ),
        pytest.param(
            "timm:test_vit",
            SHORT | {"image_size": 33},
            {},
            "got 33.*is the image_size of --preprocess",
            id="tiling",
        ),
        pytest.param(
            "vit_digits",
            SHORT | {"image_size": 48},
            {},
            "got --image-size 48 .*of --preprocess",
            id="one size only",
        ),
        pytest.param(
            "timm:test_vit",
            DIGITS | {"image_size": 160},
            {},
            "inputs of 1x160x160 .* expected 3x160x160",
            id="channels",
        ),
        pytest.param("clip_digits", SHORT, {"tower": "text"}, "nothing about a text tower", id="text tower"),
    ],
)
def test_a_contradiction_is_refused(
    model: str, document: object, options: dict[str, Any], expected: str, written: Callable[[object], str]
) -> None:
    with pytest.raises(UsageError, match=expected):
        load(ModelRequest(model=model, weights="random", preprocess=written(document), **options))


class Mean(nn.Module):
    """The mean of every channel: a program for images that is saved in no time."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, C, H, W) to (B, C)."""
        return images.mean((2, 3))


@cache
def exported() -> torch.export.ExportedProgram:
    return torch.export.export(Mean().eval(), (torch.ones(2, 3, 32, 32),))


@pytest.fixture
def program(tmp_path: Path) -> Callable[..., str]:
    """Gives the path of a program for 32 pixel images, with what it says about them."""

    def save(said: object = None) -> str:
        path = tmp_path / "mine.pt2"
        text = said if isinstance(said, str | None) else json.dumps(said)
        torch.export.save(
            exported(), path, extra_files={"preprocess.json": text} if text is not None else None
        )
        return str(path)

    return save


def test_a_program_that_says_nothing_is_noted_and_takes_a_file(
    program: Callable[..., str], written: Callable[[object], str]
) -> None:
    silent = load(ModelRequest(model=program()))
    assert (silent.preprocess, silent.notes) == (None, (SAYS_NOTHING,))
    told = load(ModelRequest(model=program(), preprocess=written(SHORT)))
    assert (told.preprocess, told.notes) == (parse_document(json.dumps(SHORT)), (GIVEN,))


def test_a_program_may_say_no_more_than_a_file(program: Callable[..., str]) -> None:
    loaded = load(ModelRequest(model=program(SHORT)))
    assert (loaded.preprocess, loaded.notes) == (parse_document(json.dumps(SHORT)), ())


def test_a_file_replaces_even_what_a_program_says_wrongly(
    program: Callable[..., str], written: Callable[[object], str]
) -> None:
    loaded = load(ModelRequest(model=program("{"), preprocess=written(SHORT)))
    assert loaded.preprocess == parse_document(json.dumps(SHORT))


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        pytest.param("{", "not JSON", id="not JSON"),
        pytest.param([1], "expected an object with the keys", id="a list"),
        pytest.param({"image_size": 32}, "missing keys: mean, std", id="missing keys"),
        pytest.param(SHORT | {"mean": [123.675] * 3}, "mean: 123.675 looks like 0..255", id="bytes"),
        pytest.param(
            SHORT | {"image_size": 64}, r"it makes inputs of \(3, 64, 64\), and the program takes", id="size"
        ),
    ],
)
def test_what_a_program_says_wrongly_is_refused_with_how_to_save_it(
    said: object, expected: str, program: Callable[..., str]
) -> None:
    with pytest.raises(
        ModelUnavailableError, match=rf"mine\.pt2: its preprocess\.json: {expected}"
    ) as caught:
        load(ModelRequest(model=program(said)))
    assert caught.value.exit_status == 3
    assert 'extra_files={"preprocess.json": json.dumps({...})}' in str(caught.value)
    assert "export the bundle again" not in str(caught.value)


def test_a_size_that_a_program_was_not_saved_for_is_refused(
    program: Callable[..., str], written: Callable[[object], str]
) -> None:
    file = written(SHORT | {"image_size": 48})
    with pytest.raises(UsageError, match=r"saved for 32x32 .*--image-size 48 .*of --preprocess"):
        load(ModelRequest(model=program(), preprocess=file))
