"""What a model is measured on: what ships with it, or what the user names; whatever does not fit is refused."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from exporter.errors import UsageError
from exporter.models import LoadedModel, ModelRequest, shipped_data
from exporter.pipeline.material import Material, material
from exporter.recipe import AccuracyGate, AgreementGate, Validation
from tests.unit.pipeline.conftest import CLASSIFIER

OUTPUTS = 10
ELSEWHERE = ModelRequest(model="hf:someone/some-model")
CLIP = replace(CLASSIFIER, name="some-clip", output_names=("embedding",))
HEADLESS = replace(CLASSIFIER, name="some-backbone", output_names=("features",))
MODELS: Mapping[str, LoadedModel] = {"classifier": CLASSIFIER, "clip": CLIP, "headless": HEADLESS}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Classes 3 and 7 with two images each, and files that name them."""
    for label in ("3", "7"):
        (tmp_path / "images" / label).mkdir(parents=True)
        for number in (0, 1):
            Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / "images" / label / f"{number}.png")
    (tmp_path / "labels.csv").write_text(
        "image,label\nimages/7/1.png,2\nimages/3/0.png,9\n", encoding="utf-8"
    )
    (tmp_path / "pairs.csv").write_text(
        "image,caption\nimages/7/1.png,red\nimages/3/0.png,black\nimages/3/0.png,red\n", encoding="utf-8"
    )
    (tmp_path / "classes.txt").write_text("".join(f"thing {each}\n" for each in range(8)), encoding="utf-8")
    (tmp_path / "templates.txt").write_text("a {}\nmany {}s\n", encoding="utf-8")
    return tmp_path


def opened(folder: Path, model: LoadedModel, **files: str) -> Material:
    asked = Validation(**{key: str(folder / name) for key, name in files.items()})  # type: ignore[arg-type]
    found = material(asked, ELSEWHERE, model, OUTPUTS)
    assert found is not None
    return found


# What ships with the model --------------------------------------------------------------------------


def test_vit_digits_is_measured_on_the_scans_that_ship_with_it() -> None:
    request = ModelRequest(model="vit_digits")
    shipped = shipped_data(request)
    assert shipped is not None

    found = material(Validation(), request, replace(CLASSIFIER, name="vit_digits"), OUTPUTS)

    assert found is not None
    assert found.images is not None
    assert found.images.labels == tuple(shipped.labels.tolist())
    assert (np.asarray(found.images.open(17)) == shipped.images_BHWC[17]).all()
    assert (found.class_names, found.pairs, found.needs_texts) == ((), None, False)


def test_clip_digits_is_measured_on_the_texts_that_ship_with_it_too() -> None:
    request = ModelRequest(model="clip_digits")
    shipped = shipped_data(request)
    assert shipped is not None
    assert shipped.captions is not None

    found = material(Validation(), request, replace(CLIP, name="clip_digits"), 64)

    assert found is not None
    assert found.pairs is not None
    assert found.needs_texts
    assert (found.class_names, found.templates) == (shipped.class_names, shipped.templates)
    assert len(set(found.pairs.texts)) == len(found.pairs.texts) < len(shipped.captions)
    assert [found.pairs.texts[text] for _, text in found.pairs.pairs] == list(shipped.captions)
    assert [image for image, _ in found.pairs.pairs] == list(range(len(shipped.captions)))
    assert found.images is found.pairs.images


def test_a_text_tower_is_measured_on_nothing() -> None:
    request = ModelRequest(model="clip_digits", tower="text")

    assert material(Validation(), request, replace(CLIP, preprocess=None), 64) is None


def test_a_model_from_elsewhere_is_measured_on_nothing_unless_something_is_named() -> None:
    assert material(Validation(), ELSEWHERE, CLASSIFIER, OUTPUTS) is None


def test_images_of_the_user_stand_in_for_those_that_ship(data: Path) -> None:
    request = ModelRequest(model="clip_digits")

    found = material(Validation(data=str(data / "images")), request, CLIP, 64)

    assert found is not None
    assert found.images is not None
    assert len(found.images.names) == 4
    assert (found.class_names, found.pairs) == ((), None)


# What the user names --------------------------------------------------------------------------------


def test_a_folder_per_class_is_labelled_by_the_folders_numbers(data: Path) -> None:
    images = opened(data, CLASSIFIER, data="images").images

    assert images is not None
    assert images.names == ("3/0.png", "3/1.png", "7/0.png", "7/1.png")
    assert images.labels == (3, 3, 7, 7)


def test_a_table_is_labelled_by_its_column(data: Path) -> None:
    images = opened(data, CLASSIFIER, data="labels.csv").images

    assert images is not None
    assert (images.names, images.labels) == (("images/7/1.png", "images/3/0.png"), (2, 9))


def test_images_may_be_taken_as_unlabelled(data: Path) -> None:
    asked = Validation(data=str(data / "images"), unlabelled=True)

    found = material(asked, ELSEWHERE, CLASSIFIER, OUTPUTS)

    assert found is not None
    assert found.images is not None
    assert (len(found.images.names), found.images.labels) == (4, None)


@pytest.mark.parametrize("kind", ["clip", "headless"])
@pytest.mark.parametrize("name", ["images", "labels.csv"])
def test_labels_mean_nothing_to_a_model_without_classes(data: Path, kind: str, name: str) -> None:
    images = opened(data, MODELS[kind], data=name).images

    assert images is not None
    assert images.labels is None


def test_class_names_make_labels_mean_something_to_a_two_tower_model(data: Path) -> None:
    found = opened(data, CLIP, data="images", classes="classes.txt", templates="templates.txt")

    assert found.images is not None
    assert found.images.labels == (3, 3, 7, 7)
    assert found.class_names == tuple(f"thing {each}" for each in range(8))
    assert found.templates == ("a {}", "many {}s")
    assert found.needs_texts


def test_class_names_without_templates_go_into_a_photo_of(data: Path) -> None:
    assert opened(data, CLIP, data="images", classes="classes.txt").templates == ("a photo of a {}.",)


def test_folders_called_like_classes_are_numbered_by_the_class_names(data: Path) -> None:
    for old, new in (("3", "thing 6"), ("7", "thing 1")):
        (data / "images" / old).rename(data / "images" / new)

    images = opened(data, CLIP, data="images", classes="classes.txt").images

    assert images is not None
    assert dict(zip(images.names, images.labels or (), strict=True)) == {
        "thing 1/0.png": 1,
        "thing 1/1.png": 1,
        "thing 6/0.png": 6,
        "thing 6/1.png": 6,
    }


def test_pairs_alone_are_enough_for_retrieval(data: Path) -> None:
    found = opened(data, CLIP, pairs="pairs.csv")

    assert found.images is None
    assert found.pairs is not None
    assert found.pairs.images.names == ("images/7/1.png", "images/3/0.png")
    assert found.pairs.texts == ("red", "black")
    assert found.pairs.pairs == ((0, 0), (1, 1), (1, 0))
    assert found.needs_texts


# Refusals -------------------------------------------------------------------------------------------

DROP = AccuracyGate(max_drop=1.0)
AGREE = AgreementGate(min=99.0)


@pytest.mark.parametrize(
    ("kind", "asked", "line"),
    [
        pytest.param("classifier", Validation(pairs="p"), "pairs: expected a two-tower model", id="pairs"),
        pytest.param("headless", Validation(pairs="p"), "pairs: expected a two-tower", id="pairs, headless"),
        pytest.param(
            "headless",
            Validation(data="images", classes="c"),
            "classes: expected a classifier, or a two-tower model such as a CLIP, got some-backbone, which gives",
            id="class names",
        ),
        pytest.param(
            "classifier",
            Validation(data="images", templates="t"),
            "templates: expected a two-tower model",
            id="templates",
        ),
        pytest.param(
            "clip",
            Validation(data="images", templates="t"),
            "templates: expected class names to put into them as well; give --classes FILE",
            id="templates without classes",
        ),
        pytest.param(
            "clip",
            Validation(classes="c"),
            "classes: expected labelled images of these classes as well; give --data DIR",
            id="classes without images",
        ),
        pytest.param(
            "clip",
            Validation(pairs="p", classes="c"),
            "classes: expected labelled images",
            id="classes with pairs alone",
        ),
    ],
)
def test_texts_that_mean_nothing_here_are_refused(kind: str, asked: Validation, line: str) -> None:
    with pytest.raises(UsageError) as raised:
        material(asked, ELSEWHERE, MODELS[kind], OUTPUTS)

    assert str(raised.value).startswith(line)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("files", [{"data": "images"}, {"pairs": "pairs.csv"}])
def test_images_need_a_known_preprocessing(data: Path, files: dict[str, str]) -> None:
    blind = replace(CLIP, name="blind", preprocess=None)

    with pytest.raises(UsageError, match="blind does not say how images become its input"):
        opened(data, blind, **files)


@pytest.mark.parametrize(
    ("kind", "files", "gate", "key"),
    [
        pytest.param("classifier", {}, DROP, "accuracy.max_drop", id="max_drop of nothing"),
        pytest.param("classifier", {}, AGREE, "agreement.min", id="agreement on nothing"),
        pytest.param("clip", {"data": "images"}, DROP, "accuracy.max_drop", id="max_drop of embeddings"),
        pytest.param("clip", {"data": "images"}, AGREE, "agreement.min", id="agreement of embeddings"),
        pytest.param("clip", {"pairs": "pairs.csv"}, DROP, "accuracy.max_drop", id="max_drop of pairs"),
        pytest.param("clip", {"pairs": "pairs.csv"}, AGREE, "agreement.min", id="agreement on pairs"),
        pytest.param("headless", {"data": "images"}, AGREE, "agreement.min", id="agreement of features"),
        pytest.param(
            "classifier",
            {"data": "images", "unlabelled": "yes"},
            DROP,
            "accuracy.max_drop",
            id="max_drop without labels",
        ),
    ],
)
def test_gates_without_anything_to_judge_by_are_refused(
    data: Path, kind: str, files: dict[str, str], gate: AccuracyGate | AgreementGate, key: str
) -> None:
    asked = Validation(
        data=str(data / files["data"]) if "data" in files else None,
        pairs=str(data / files["pairs"]) if "pairs" in files else None,
        unlabelled="unlabelled" in files,
        **{"accuracy" if gate is DROP else "agreement": gate},  # type: ignore[arg-type]
    )

    with pytest.raises(UsageError, match=rf"^validate\.{key}: expected .* --data DIR, .* --classes FILE$"):
        material(asked, ELSEWHERE, MODELS[kind], OUTPUTS)


@pytest.mark.parametrize(
    ("kind", "asked"),
    [
        pytest.param("classifier", {"unlabelled": True, "agreement": AGREE}, id="agreement needs no labels"),
        pytest.param("classifier", {"accuracy": DROP, "agreement": AGREE}, id="labelled images"),
        pytest.param("clip", {"classes": "", "accuracy": DROP, "agreement": AGREE}, id="class names"),
    ],
)
def test_gates_with_something_to_judge_by_are_taken(data: Path, kind: str, asked: dict[str, object]) -> None:
    named = asked | ({"classes": str(data / "classes.txt")} if "classes" in asked else {})

    found = material(
        Validation(data=str(data / "images"), **named),  # type: ignore[arg-type]
        ELSEWHERE,
        MODELS[kind],
        OUTPUTS,
    )

    assert found is not None


def test_a_label_that_the_model_does_not_have_is_refused_with_its_line(data: Path) -> None:
    with pytest.raises(UsageError, match=r"labels\.csv, line 3: expected a class index from 0 to 8.* got 9"):
        material(Validation(data=str(data / "labels.csv")), ELSEWHERE, CLASSIFIER, 9)


def test_a_label_beyond_the_class_names_is_refused(data: Path) -> None:
    with pytest.raises(UsageError, match=r"labels\.csv, line 3: expected a class index from 0 to 7.* got 9"):
        opened(data, CLIP, data="labels.csv", classes="classes.txt")
