"""`ladder` of a model that gives vectors: routed by how alike the tokens are that merge."""

import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

from exporter.bundle import Bundle, load_bundle
from exporter.ladder import upper_bound
from exporter.models import preprocess_image
from exporter.signature import Array
from tests.cli.commands import TINY, Build, run
from tests.support.once import once
from tests.support.pretended_race import PretendedRace

LIMIT = 0.9999
"""Three of sixteen patches change little in two blocks: about half of the patterned images are below."""


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty images of one colour, and twenty of patches that have nothing in common."""

    def draw(folder: Path) -> None:
        random = np.random.default_rng(0)
        for number in range(40):
            side = 1 if number % 2 else 8
            pixels = random.integers(0, 256, (side, side, 3)).repeat(64 // side, 0).repeat(64 // side, 1)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number:02}.png")

    return once(tmp_path_factory, "photos-of-two-kinds", draw)


@pytest.fixture
def built(build: Build, photos: Path) -> Bundle:
    """A tiny ViT of random weights without classes, dense and with r=3; shared, so not to be changed."""
    words = ("--model-option", "num_classes=0", "--r", "0,3", "--batch", "4", "--no-bench", "--data", photos)
    goal = ("--agreement", "90%", "--cosine", LIMIT)
    return load_bundle(build("ladder", *TINY, *words, *map(str, goal)))


@pytest.fixture
def outputs(built: Bundle, photos: Path) -> list[dict[str, Array]]:
    """What the cheaper engine gives of the photos, and the dense one."""
    preprocess = built.preprocess()
    assert preprocess is not None
    files = sorted(photos.iterdir())
    inputs = np.stack([preprocess_image(Image.open(each).convert("RGB"), preprocess) for each in files])
    return [dict(each.runner()(inputs)) for each in built.rungs()]


def cosines(one_NC: Array, other_NC: Array) -> Array:
    norms = np.linalg.norm(one_NC, axis=1) * np.linalg.norm(other_NC, axis=1)
    found: Array = (one_NC * other_NC).sum(axis=1) / norms
    return found


def test_vector_of_the_cheaper_engine_is_kept_where_its_tokens_are_alike(
    built: Bundle, outputs: list[dict[str, Array]]
) -> None:
    record, (cheap, dense) = built.ladder(), outputs
    assert record is not None

    kept_N = cheap["redundancy"][:, 0] >= record.threshold
    far_N = cosines(cheap["features"], dense["features"]) < LIMIT
    of = record.certificate
    assert (record.router, of.cosine, of.images) == ("redundancy", LIMIT, 40)
    assert "redundancy" not in dense and list(cheap) == ["features", "redundancy"]
    assert record.rungs[0].share == pytest.approx(kept_N.mean())
    assert 20 <= kept_N.sum() < 40 and kept_N[1::2].all()  # all of one colour
    assert record.rungs[0].disagreements == far_N.sum() > 0
    assert of.disagreements == (kept_N & far_N).sum()
    assert of.bound == upper_bound(of.disagreements, 40) <= 0.1


def test_validate_and_report_say_what_the_ladder_keeps(
    built: Bundle, outputs: list[dict[str, Array]], photos: Path, tmp_path: Path
) -> None:
    outcome = run("validate", built.path, "--data", photos, "--no-save", "--json")

    assert outcome.status == 0, outcome.err
    record, (cheap, dense) = built.ladder(), outputs
    assert record is not None
    kept_N = cheap["redundancy"][:, 0] >= record.threshold
    near_N = np.where(kept_N, cosines(cheap["features"], dense["features"]), 1)
    assert outcome.document["rungs"]["tome-r3"]["onnx"]["passed"]
    assert outcome.document["fidelity"]["ladder"]["cosine_mean"] == pytest.approx(near_N.mean(), abs=1e-5)
    copy = shutil.copytree(built.path, tmp_path / "copy")
    assert run("report", copy, "--quiet").status == 0
    told = (copy / "report.md").read_text()
    assert re.search(r"with a cosine of 0.9999 or more to its vector, on at least 9\d", told)
    assert f"kept from a redundancy of {record.threshold:.4f} on" in told
    assert run("validate", built.path / "cheaper", "--data", photos, "--no-save", "--quiet").status == 0


def test_embed_and_bench_route_as_the_record_says(
    built: Bundle,
    outputs: list[dict[str, Array]],
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    outcome = run(
        "embed", built.path, "--data", photos, "--out", tmp_path / "out", "--workers", "1", "--json"
    )

    assert outcome.status == 0, outcome.err
    record = built.ladder()
    assert record is not None
    rung_N = (outputs[0]["redundancy"][:, 0] < record.threshold).astype(int)
    table = pyarrow.parquet.read_table(tmp_path / "out" / "shard-000000.parquet")
    assert table.column_names == ["path", "features", "error", "rung"]
    assert table.column("rung").to_pylist() == [record.rungs[rung].name for rung in rung_N]
    expected_NC = np.stack([each["features"] for each in outputs])[rung_N, np.arange(40)]
    np.testing.assert_allclose(np.array(table.column("features").to_pylist()), expected_NC, atol=1e-4)

    race = PretendedRace(tmp_path, monkeypatch)
    words = ("--processes", "2", "--rounds", "1", "--threads", "1", "--data", photos, "--no-save")
    assert run("bench", built.path, *words, "--quiet").status == 0
    started = {each.contender["name"]: each.contender for each in race.started}
    contender = started["ladder onnx"]
    assert (contender["router"], contender["threshold"]) == ("redundancy", record.threshold)
