"""What labels are matched with: the names of `--classes`, the model's own, or nothing."""

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from exporter.errors import UsageError
from exporter.models import ClassNames, LoadedModel, ModelRequest
from exporter.pipeline.material import Material, material
from exporter.recipe import Validation
from tests.unit.pipeline.conftest import CLASSIFIER

ELSEWHERE = ModelRequest(model="hf:someone/pets")
OWN: ClassNames = (("cat", "house cat"), ("dog",), ("newt",))
MODEL = replace(CLASSIFIER, class_names=OWN)
CLIP = replace(MODEL, output_names=("embedding",), class_names=None)
HEADLESS = replace(MODEL, output_names=("features",), class_names=None)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Folders `dog` and `cat`, a table of the same, and files of names."""
    for name in ("dog", "cat"):
        (tmp_path / "images" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "images" / name / "0.png")
    files = {
        "own.txt": "cat\ndog\nnewt\n",
        "other.txt": "newt\ndog\ncat\n",
        "short.txt": "cat\ndog\n",
        "labels.csv": "image,label\nimages/dog/0.png,dog\nimages/cat/0.png,House_Cat\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def opened(
    folder: Path,
    model: LoadedModel,
    *,
    data: str = "images",
    classes: str | None = None,
    in_order: bool = False,
) -> Material:
    asked = Validation(
        data=str(folder / data),
        classes=None if classes is None else str(folder / classes),
        labels_in_order=in_order,
    )
    found = material(asked, ELSEWHERE, model, 3)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("model", "data_name", "classes", "labels", "rule"),
    [
        pytest.param(MODEL, "images", None, (0, 1), "name", id="the model's names"),
        pytest.param(MODEL, "labels.csv", None, (1, 0), "name", id="the model's names in a table"),
        pytest.param(MODEL, "images", "own.txt", (0, 1), "classes", id="a file of the same"),
        pytest.param(MODEL, "images", "other.txt", (2, 1), "classes", id="a file of others"),
        pytest.param(
            replace(MODEL, class_names=None), "images", "own.txt", (0, 1), "classes", id="a file alone"
        ),
        pytest.param(CLIP, "images", "other.txt", (2, 1), "classes", id="a two-tower model"),
        pytest.param(
            CLIP, "images", "short.txt", (0, 1), "classes", id="which has as many classes as there are lines"
        ),
    ],
)
def test_labels_are_matched_with_the_names_that_are_known(
    data: Path, model: LoadedModel, data_name: str, classes: str | None, labels: tuple[int, ...], rule: str
) -> None:
    images = opened(data, model, data=data_name, classes=classes).images

    assert images is not None and images.match is not None
    assert (images.labels, images.match.matched_by) == (labels, rule)


def test_only_a_two_tower_model_makes_prompts_of_class_names(data: Path) -> None:
    assert opened(data, MODEL, classes="own.txt").class_names == ()
    assert opened(data, CLIP, classes="own.txt").class_names == ("cat", "dog", "newt")


def test_a_file_that_contradicts_the_model_counts_and_is_noted(data: Path) -> None:
    images = opened(data, MODEL, classes="other.txt").images

    assert images is not None
    assert images.notes == ("--classes has newt as class 0, the model as class 2: --classes counts",)


def test_names_that_are_not_one_for_each_output_are_not_used_and_that_is_noted(data: Path) -> None:
    model = replace(MODEL, class_names=OWN[:2])

    with pytest.raises(UsageError, match="nothing says which classes"):
        opened(data, model)
    images = opened(data, model, classes="own.txt").images
    assert images is not None
    assert images.notes == ("the model names 2 classes and has 3 outputs: its names are not used",)


def test_names_of_the_model_are_nothing_to_images_without_labels(data: Path) -> None:
    model = replace(MODEL, class_names=OWN[:2])
    asked = Validation(data=str(data / "images"), unlabelled=True)

    found = material(asked, ELSEWHERE, model, 3)

    assert found is not None and found.images is not None
    assert (found.images.labels, found.images.match, found.images.notes) == (None, None, ())


@pytest.mark.parametrize(
    ("model", "asked", "expected"),
    [
        pytest.param(
            MODEL,
            Validation(data="images", classes="short.txt"),
            r"^classes: expected 3 lines in .*short\.txt, one for each class of the model in its order, got 2$",
            id="too few lines",
        ),
        pytest.param(
            HEADLESS,
            Validation(data="images", classes="own.txt"),
            "^classes: expected a classifier",
            id="no classes",
        ),
        pytest.param(
            HEADLESS,
            Validation(data="images", labels_in_order=True),
            "^labels_in_order: .*features",
            id="features",
        ),
        pytest.param(
            CLIP,
            Validation(data="images", labels_in_order=True),
            "^labels_in_order: .*embedding",
            id="embeddings",
        ),
        pytest.param(
            MODEL, Validation(labels_in_order=True), "^labels_in_order: expected labelled", id="no data"
        ),
        pytest.param(
            MODEL,
            Validation(data="images", unlabelled=True, labels_in_order=True),
            "^labels_in_order: expected labelled images; give --data DIR without --unlabelled",
            id="unlabelled",
        ),
        pytest.param(
            MODEL,
            Validation(data="images", labels_in_order=True),
            "expected 3 folders as the model has",
            id="two of three",
        ),
    ],
)
def test_what_cannot_be_matched_is_refused(
    data: Path, model: LoadedModel, asked: Validation, expected: str
) -> None:
    files = {
        key: str(data / name) for key in ("data", "classes") if (name := getattr(asked, key)) is not None
    }

    with pytest.raises(UsageError, match=expected):
        material(replace(asked, **files), ELSEWHERE, model, 3)  # type: ignore[arg-type]
