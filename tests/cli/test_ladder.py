"""`ladder` as a user types it, and what the other commands do with what it writes."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image
from scipy.special import softmax

from exporter.benchmark import Contender, WarmUp
from exporter.benchmark.loading import arrays_of, load_contender
from exporter.benchmark.messages import Job
from exporter.bundle import Bundle, load_bundle
from exporter.ladder import Cascade, certify, rung_of, upper_bound
from exporter.models import ModelRequest, preprocess_image, shipped_data
from exporter.pipeline.racing import bundle_subject
from exporter.signature import Array
from tests.cli.commands import TINY, Build, refused, reseal, run, tree
from tests.support.pretended_race import PretendedRace

VECTORS = ("--model-option", "num_classes=0")
WORDS = ("ladder", "vit_digits", "--r", "12,0", "--agreement", "98%", "--batch", "8", "--no-bench")


@pytest.fixture
def built(build: Build) -> Bundle:
    """The shipped ViT dense and with r=12, certified on its 454 held-out scans; shared, so not to be changed."""
    return load_bundle(build(*WORDS))


@pytest.fixture
def copy(built: Bundle, tmp_path: Path) -> Path:
    """A ladder of its own."""
    return Path(shutil.copytree(built.path, tmp_path / "place" / "ladder"))


@pytest.fixture
def logits_KNC(built: Bundle) -> Array:
    """What both engines say of the held-out scans, the cheaper one first."""
    data, preprocess = shipped_data(ModelRequest(model="vit_digits")), built.preprocess()
    assert data is not None and preprocess is not None
    inputs = np.stack([preprocess_image(Image.fromarray(each), preprocess) for each in data.images_BHWC])
    return np.stack([each.runner()(inputs)["logits"] for each in built.rungs()])


def margins(logits_NC: Array) -> Array:
    ordered_NC: Array = np.sort(softmax(logits_NC.astype(np.float64), axis=1), axis=1)
    return ordered_NC[:, -1] - ordered_NC[:, -2]


def test_ladder_says_what_its_engines_do_on_the_images_that_it_is_certified_on(
    built: Bundle, logits_KNC: Array
) -> None:
    record = built.ladder()
    assert record is not None
    kept_N = margins(logits_KNC[0]) >= record.threshold
    differs_N = kept_N & (logits_KNC[0].argmax(axis=1) != logits_KNC[1].argmax(axis=1))
    macs = [each.manifest.gmacs.executed for each in built.rungs()]

    assert [each.name for each in record.rungs] == ["tome-r12", "dense"]
    assert record.rungs[0].share == pytest.approx(kept_N.mean())
    assert record.macs == pytest.approx((macs[0] + (1 - kept_N.mean()) * macs[1]) / macs[1])
    assert 0.3 < record.macs < 0.8
    of = record.certificate
    assert (of.images, of.repeated, of.unreadable) == (454, 0, 0)
    assert of.disagreements == differs_N.sum()
    assert of.bound == upper_bound(of.disagreements, 454) <= 0.02
    assert record.single == "dense" and record.single_macs == 1.0


def test_weights_are_stored_once_and_every_engine_is_a_bundle(built: Bundle) -> None:
    for rung in built.rungs():
        bundle = load_bundle(rung.path)
        sample = bundle.sample()
        given = bundle.signature.inputs_of(sample)
        np.testing.assert_allclose(bundle.runner()(given)["logits"], sample["logits"], atol=1e-4)
    sizes = {file.name: file.stat().st_size for file in built.path.rglob("model.onnx*")}
    assert sizes["model.onnx.data"] > 2_000_000  # 0.63 M parameters in fp32
    assert [file.parent.name for file in built.path.rglob("model.onnx.data")] == ["cheaper"]
    assert sizes["model.onnx"] < 200_000


def test_report_shows_the_ladders_engines_and_what_they_have_to_beat(copy: Path) -> None:
    assert run("report", copy, "--quiet").status == 0

    told, record = (copy / "report.md").read_text(), load_bundle(copy).ladder()
    assert record is not None and record.by_size is not None
    assert re.search(r"\| tome-r12 \| 7[56]\.\d+ % \|", told)
    assert f"Expected multiply-accumulates: {100 * record.macs:.2f} % of dense" in told
    assert "the best single engine, dense, 100.00 %" in told
    assert f"routed by file size {100 * record.by_size.macs:.2f} %" in told


def test_validate_compares_the_ladder_with_the_dense_model_and_with_labels(copy: Path) -> None:
    outcome = run("validate", copy, "--json")

    assert outcome.status == 0, outcome.err
    record = load_bundle(copy).ladder()
    assert record is not None
    found = outcome.document
    assert found["rungs"]["tome-r12"]["onnx"]["passed"]
    agreement = 100 * (1 - record.certificate.disagreements / 454)
    assert found["fidelity"]["ladder"]["top1_agreement"] == pytest.approx(agreement)
    assert found["fidelity"]["onnx"]["top1_agreement"] == 100
    assert found["accuracy"]["ladder"]["top1"] == pytest.approx(found["accuracy"]["dense"]["top1"], abs=2)


def test_certificate_holds_on_the_other_half_of_the_images(logits_KNC: Array) -> None:
    values_KN = margins(logits_KNC[0])[None]
    differs_KN = logits_KNC.argmax(axis=2) != logits_KNC[1].argmax(axis=1)
    rng, held = np.random.default_rng(0), 0
    for _ in range(100):
        order = rng.permutation(454)
        half, other = order[:227], order[227:]
        certified = certify(values_KN[:, half], differs_KN[:, half], 0.98)
        assert certified is not None
        rung = rung_of(values_KN[:, other], certified.threshold)
        assert (rung == 0).mean() > 0.3
        held += differs_KN[rung, other].mean() <= 0.02

    assert held >= 90


def test_ladder_of_other_engines_is_refused(copy: Path) -> None:
    whole = json.loads((copy / "ladder.json").read_text())
    first, last = whole["rungs"]
    for change in ({"rungs": [first | {"sha256": "0" * 64}, last]}, {"router": "redundancy"}):
        (copy / "ladder.json").write_text(json.dumps(whole | change))
        assert "has changed" in refused(8, "validate", copy)

        reseal(copy)

        assert "ladder.json is of other engines; build the ladder again" in refused(8, "validate", copy)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        pytest.param(("--r", "0"), "expected two schedules or more that differ", id="one engine"),
        pytest.param(("--r", "0,x"), "--r: expected an integer, got 'x'", id="no integer"),
        pytest.param(("--r", "4,2,2,40,50"), "which merge alike; leave one of them out", id="alike"),
        pytest.param(("--agreement", "100%"), "a percent from 50 to below 100", id="certain"),
        pytest.param(("--agreement", "0.99"), "such as 99%, got 0.99%", id="a share"),
        pytest.param(("--agreement", "most"), "expected a percent such as 99%, got most", id="a word"),
        pytest.param(("--target", "onnx,openvino"), "expected one target", id="two targets"),
        pytest.param((), "expected images like those that will be served", id="no images"),
        pytest.param(
            ("--cosine", "0.9"), "is a classifier, whose classes are compared", id="cosine of classes"
        ),
        pytest.param(
            (*VECTORS, "--cosine", "1"), "a number between 0 and 1, such as 0.99, got 1", id="cosine"
        ),
        pytest.param((*VECTORS, "--method", "dct"), "method dct: how alike the tokens are", id="no match"),
        pytest.param(
            ("--outputs", "dense"),
            "logits or one vector per image, got test_vit, which gives tokens",
            id="tokens",
        ),
    ],
)
def test_what_cannot_be_a_ladder_is_refused_in_one_line(
    words: tuple[str, ...], complaint: str, tmp_path: Path
) -> None:
    given: tuple[str | Path, ...] = ("ladder", *TINY, "--r", "0,2", *words, "--out", tmp_path / "out")

    assert complaint in refused(2, *given)
    assert tree(tmp_path) == {}


def test_images_that_are_too_few_or_all_alike_are_refused_and_what_was_there_stays(
    copy: Path, labelled_folder: Path, tmp_path: Path
) -> None:
    before = tree(copy.parent)
    alike = tmp_path / "alike"
    alike.mkdir()
    for number in range(30):
        shutil.copy(labelled_folder / "3" / "0.png", alike / f"{number}.png")
    given = ("ladder", *TINY, "--r", "0,2", "--out", copy, "--force", "--data")

    few = refused(2, *given, labelled_folder, "--agreement", "99.5%")
    same = refused(2, *given, alike, "--agreement", "90%")

    assert "expected at least 598 images to certify an agreement of 99.5 %" in few and "got 6 in" in few
    assert "expected at least 29 different images" in same and "got 1 in alike" in same
    assert tree(copy.parent) == before


def test_embed_gives_the_ladders_vectors_and_says_which_engine_they_are_of(
    built: Bundle, logits_KNC: Array, tmp_path: Path
) -> None:
    data = shipped_data(ModelRequest(model="vit_digits"))
    assert data is not None
    for number, pixels in enumerate(data.images_BHWC[:30]):
        Image.fromarray(pixels).save(tmp_path / f"{number:02}.png")
    (tmp_path / "99.png").write_bytes(b"no image")
    words = ("--data", tmp_path, "--out", tmp_path / "out", "--workers", "1", "--max-errors", "1")

    outcome = run("embed", built.path, *words, "--json")

    assert outcome.status == 0, outcome.err
    table = pyarrow.parquet.read_table(tmp_path / "out" / "shard-000000.parquet")
    record = built.ladder()
    assert record is not None
    rung_N = (margins(logits_KNC[0, :30]) < record.threshold).astype(int)
    assert table.column_names == ["path", "logits", "error", "rung"]
    assert table.column("rung").to_pylist() == [*(record.rungs[rung].name for rung in rung_N), None]
    assert 0 < rung_N.sum() < 30
    np.testing.assert_allclose(
        np.array(table.column("logits").to_pylist()[:30]), logits_KNC[rung_N, np.arange(30)], atol=1e-4
    )


def test_bench_races_the_ladder_against_each_of_its_engines_over_the_same_images(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    race = PretendedRace(tmp_path, monkeypatch)
    words = ("--processes", "2", "--rounds", "1", "--threads", "1", "--batch", "40")

    outcome = run("bench", copy, *words, "--json")

    assert outcome.status == 0, outcome.err
    found = outcome.document
    assert [each["name"] for each in found["contenders"]] == ["dense onnx", "tome-r12 onnx", "ladder onnx"]
    assert {each["batch"] for each in found["contenders"]} == {40}
    assert [each["name"] for each in found["ratios"]] == [
        "tome-r12 onnx / dense onnx",
        "ladder onnx / dense onnx",
    ]
    assert found["own"] == {"onnx": "ladder onnx"} and (copy / "bench.json").is_file()
    started = {each.contender["name"]: each for each in race.started}
    assert all("(40, 3, 32, 32)" in each.input for each in started.values())
    ladder = started["ladder onnx"].contender
    dense, cheap = (started[name].contender["executed_macs"] for name in ("dense onnx", "tome-r12 onnx"))
    assert cheap < ladder["executed_macs"] < dense
    assert [each["path"] for each in ladder["cheaper"]] == [str(copy / "cheaper" / "model.onnx")]


def test_worker_of_a_race_routes_as_the_ladder_does(built: Bundle) -> None:
    cascade, sample = Cascade.of(built), built.sample()
    assert cascade is not None
    inputs = built.signature.inputs_of(sample)
    cheaper, last = (bundle_subject(each, "any", 8).engines["onnx"] for each in built.rungs())
    contender = Contender(
        name="ladder",
        kind="engine",
        batch=8,
        reduced=True,
        executed_macs=1,
        engine=last,
        cheaper=(cheaper,),
        threshold=cascade.threshold,
    )

    (outputs,) = arrays_of(load_contender(job_of(contender), inputs).call())

    np.testing.assert_allclose(outputs, cascade(inputs)["logits"], atol=1e-5)


def test_engine_that_is_called_with_several_of_its_batches_has_no_time_by_block(built: Bundle) -> None:
    file = bundle_subject(built, "any", 16).engines["onnx"]
    inputs = np.concatenate([built.sample()["images"]] * 2)
    contender = Contender(name="dense", kind="engine", batch=16, reduced=False, executed_macs=1, engine=file)

    loaded = load_contender(job_of(contender), {"images": inputs})

    assert loaded.profile is None
    assert arrays_of(loaded.call())[0].shape == (16, 10)


def job_of(contender: Contender) -> Job:
    return Job(contender=contender, images=Path("any"), threads=1, cores=(0,), device="cpu", warm_up=WarmUp())


def test_bench_takes_one_ladder_alone_and_images_for_a_ladder_only(
    built: Bundle, labelled_folder: Path
) -> None:
    assert "leave --data out" in refused(
        2, "bench", built.path / "cheaper", "--no-save", "--data", labelled_folder
    )
    assert "give one --batch" in refused(2, "bench", built.path, "--batch", "1,8", "--no-save")
    assert "on the host" in refused(2, "bench", built.path, "--device", "cuda", "--no-save")


def test_ladder_is_not_packed(built: Bundle, tmp_path: Path) -> None:
    complaint = refused(2, "pack", built.path, "--for", "triton", "--out", tmp_path / "models")

    assert "expected one engine, got a ladder" in complaint and str(built.path / "cheaper") in complaint
    assert tree(tmp_path) == {}


ADAPTIVE = """
model: {name: "timm:test_vit", options: {depth: 2, num_classes: 7}}
weights: random
image_size: 64
batch: 4
token_optimizer: {method: tome, reduction_ratio: 0.15, adaptive: true}
validate: {data: photos}
bench: {race: false}
"""


def test_adaptive_recipe_saves_its_ratio_in_the_mean(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    noise = np.random.default_rng(0)
    for number in range(40):
        pixels = noise.integers(0, 256, (8, 8, 3)).repeat(8, axis=0).repeat(8, axis=1)
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "photos" / f"{number}.png")
    recipe = tmp_path / "adaptive.yaml"
    recipe.write_text(ADAPTIVE, encoding="utf-8")

    outcome = run("run", recipe, "--out", tmp_path / "out", "--json")

    assert outcome.status == 0, outcome.err
    bundle = load_bundle(tmp_path / "out")
    record = bundle.ladder()
    assert record is not None
    assert record.macs == pytest.approx(1 - 0.15, abs=0.07)  # an image more on all three engines costs 0.06
    savings = [1 - each.manifest.gmacs.reduced / each.manifest.gmacs.dense for each in bundle.rungs()]
    assert savings == pytest.approx([0.225, 0.15, 0.075], abs=0.03)  # of 16 tokens, one is much
    assert record.certificate.agreement is None


def test_what_no_adaptive_recipe_can_be_is_refused(tmp_path: Path) -> None:
    recipe = tmp_path / "adaptive.yaml"
    for old, new, complaint in (
        (
            "0.15",
            "0.6",
            "the cheapest engine saves one and a half of the ratio: schedule.reduction_ratio: expected at most",
        ),
        ("0.15", "0", "token_optimizer.reduction_ratio: expected more than 0"),
        (
            "{data: photos}",
            "{data: photos, agreement: {min: 99}}",
            "validate.agreement.min: an adaptive recipe says",
        ),
    ):
        recipe.write_text(ADAPTIVE.replace(old, new), encoding="utf-8")
        assert complaint in refused(2, "run", recipe, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
