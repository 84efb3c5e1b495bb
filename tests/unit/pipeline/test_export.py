"""Exports from Python: a recipe in, a bundle out."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import exporter
from exporter.errors import ParityError, RecipeError, UsageError, WeightsError
from exporter.models import ModelRequest
from exporter.pipeline import Note, build, plan_export, validate
from exporter.recipe import ParityGate, Recipe
from exporter.schedule import ScheduleRequest
from exporter.validation import verify
from tests.support.families import family


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    vit = family("timm_vit")
    path = tmp_path_factory.mktemp("program") / "tiny.pt2"
    with torch.no_grad():
        torch.export.save(torch.export.export(vit.model(), (vit.images(1),)), path)
    return path


@pytest.fixture(scope="module")
def recipe(program: Path) -> Recipe:
    return Recipe(model=ModelRequest(model=str(program)), schedule=ScheduleRequest(r=4))


class Lines:
    """Notes down what one stage says."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def __call__(self, line: str) -> None:
        """One line."""
        self.said.append(line)

    def progress(self, done: int, total: int) -> None:
        """Not of interest here."""


class Stages:
    """Notes down which stages it was told of, and what they said."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    @contextmanager
    def observe(self, stage: str) -> Iterator[Note]:
        """One stage."""
        lines = Lines()
        yield lines
        self.seen.append((stage, " ".join(lines.said)))


@pytest.fixture(scope="module")
def stages() -> Stages:
    return Stages()


@pytest.fixture(scope="module")
def bundle(recipe: Recipe, stages: Stages, tmp_path_factory: pytest.TempPathFactory) -> exporter.Bundle:
    return exporter.export(recipe, tmp_path_factory.mktemp("bundles") / "tiny", observe=stages.observe)


def test_bundle_runs(bundle: exporter.Bundle) -> None:
    images = family("timm_vit").images(3).numpy()

    outputs = exporter.load_bundle(bundle.path).runner("onnx")(images)

    assert outputs["logits"].shape == (3, 10)
    assert bundle.manifest == exporter.load_bundle(bundle.path).manifest


def test_recipe_of_the_bundle_is_the_one_asked_for(bundle: exporter.Bundle, recipe: Recipe) -> None:
    stored = bundle.recipe()

    assert replace(stored, model=recipe.model) == recipe
    assert stored.model.model == "tiny.pt2"


@pytest.mark.usefixtures("bundle")
def test_stages_are_told_in_the_order_of_the_road(stages: Stages) -> None:
    names = [name for name, _ in stages.seen]

    assert names == ["load", "capture", "plan", "rewrite", "run eager", "emit onnx", "verify onnx", "bundle"]
    assert all(note for _, note in stages.seen)


def test_engine_that_flips_a_tie_has_a_sample_of_its_own(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "exporter.pipeline.compile.verify", lambda *given: replace(verify(*given), followed=("noise",))
    )
    monkeypatch.setattr(
        "exporter.pipeline.compile.along_matches",
        lambda program, artifact, reference: replace(
            reference, outputs=tuple(torch.full_like(each, 7.0) for each in reference.outputs)
        ),
    )

    bundle = exporter.export(recipe, tmp_path / "out")

    assert (bundle.sample("onnx")["logits"] == 7.0).all()
    assert not (bundle.sample()["logits"] == 7.0).any()
    assert (bundle.path / "sample-onnx.npz").is_file()


def test_recipes_built_in_python_are_checked(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="batch"):
        exporter.export(replace(recipe, batch=0), tmp_path / "out")
    with pytest.raises(RecipeError, match="targets"):
        exporter.export(replace(recipe, targets=("onxn",)), tmp_path / "out")


def test_stricter_parity_gate_is_obeyed(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(ParityError, match="max_abs_error"):
        exporter.export(replace(recipe, parity=ParityGate(max_abs_error=0.0)), tmp_path / "out")

    assert list(tmp_path.iterdir()) == []


def test_program_of_one_batch_serves_no_other(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="batch"):
        exporter.export(replace(recipe, batch=2), tmp_path / "out")


def test_bytes_need_a_known_normalisation(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="input"):
        exporter.export(replace(recipe, input="uint8"), tmp_path / "out")


def test_other_weights_than_recorded_are_refused(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="expected the ones"):
        build(recipe, tmp_path / "out", weights_sha256="0" * 64)

    assert list(tmp_path.iterdir()) == []


def test_plan_builds_nothing(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    planned = plan_export(recipe)

    assert planned.schedule.tokens == (37, 33, 29, 25, 21)
    assert planned.anatomy is not None
    assert len(planned.anatomy.blocks) == 4
    assert list(tmp_path.iterdir()) == []


def test_validation_proves_the_engine_again(bundle: exporter.Bundle) -> None:
    validated = validate(bundle.path)

    assert validated.parity["onnx"].passed
    assert validated.parity["onnx"].comparisons.keys() == {"sample/logits"}
    assert validated.measured is None


def test_public_names_are_all_there() -> None:
    assert all(getattr(exporter, name) is not None for name in exporter.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        exporter.no_such_name  # noqa: B018
