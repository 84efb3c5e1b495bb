"""The numbers of a measurement equal those that plain numpy finds in the model's and the engine's own outputs."""

import json
from dataclasses import dataclass, replace
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import exporter
from exporter.errors import GateError
from exporter.models import ModelRequest, Preprocess, crop_image, normalize
from exporter.pipeline import build
from exporter.pipeline.contenders import engine_contender
from exporter.pipeline.measure import require_measured
from exporter.recipe import AccuracyGate, AgreementGate, OverflowGate, Recipe, Validation
from exporter.records import Accuracy, DataRecord, Difference, Fidelity, SlotNeed, ValidationRecord
from exporter.schedule import ScheduleRequest
from exporter.targets import Array
from tests.support.fake_runner import FakeRunner
from tests.support.families import family
from tests.unit.pipeline.conftest import ClipDigits

BATCH = 4  # of the saved program: chunks of ten images are no multiple of it
CHUNK = 10
COUNT = 36
CLASSES = 10
PREPROCESS = Preprocess(
    image_size=(24, 24),
    interpolation="bicubic",
    crop_fraction=0.8,
    mean=(0.4, 0.5, 0.6),
    std=(0.2, 0.3, 0.25),
)


@dataclass(frozen=True, kw_only=True)
class Tiny:
    """A classifier of a fixed batch, measured on labelled images, and what is expected: logits and labels."""

    bundle: exporter.Bundle
    tree: dict[str, Any]
    merging_blocks: tuple[int, ...]
    dense_BC: Array
    onnx_BC: Array
    labels_B: Array


def write_images(folder: Path) -> list[Path]:
    """Blocks of colour, of several sizes; the first file is damaged."""
    generator = np.random.default_rng(3)
    paths = [folder / f"{number:02}.png" for number in range(COUNT)]
    for number, path in enumerate(paths):
        blocks_HWC = generator.integers(0, 256, (6, 5 + number % 3, 3), dtype=np.uint8)
        Image.fromarray(blocks_HWC.repeat(8, 0).repeat(7, 1)).save(path)
    return paths


def batches(images_BCHW: Array) -> list[Array]:
    return np.split(images_BCHW, len(images_BCHW) // BATCH)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    folder = tmp_path_factory.mktemp("tiny")
    vit = family("timm_vit")
    model = vit.model()
    with torch.no_grad():
        program = torch.export.export(model, (vit.images(BATCH),))
    files = {"preprocess.json": json.dumps(PREPROCESS.to_dict())}
    torch.export.save(program, folder / "tiny.pt2", extra_files=files)
    paths = write_images(folder)
    images_BCHW = np.stack(
        [normalize(crop_image(Image.open(path), PREPROCESS), PREPROCESS) for path in paths]
    )
    with torch.no_grad():
        dense_BC = model(torch.from_numpy(images_BCHW)).numpy()
    # The dense model has three of four images right, whatever it says.
    wrong_B = np.arange(COUNT) % 4 == 3
    labels_B = (dense_BC.argmax(1) + wrong_B) % CLASSES
    rows = [f"{path.name},{label}" for path, label in zip(paths, labels_B, strict=True)]
    rows.insert(CHUNK + 1, "damaged.png,0")
    (folder / "damaged.png").write_bytes(paths[0].read_bytes()[:60])
    (folder / "labels.csv").write_text("\n".join(["image,label", *rows]), encoding="utf-8")
    recipe = Recipe(
        model=ModelRequest(model=str(folder / "tiny.pt2")),
        schedule=ScheduleRequest(r=8),
        batch=BATCH,
        validate=Validation(data=str(folder / "labels.csv")),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("exporter.validation.outputs.CHUNK", CHUNK)
        built = build(recipe, folder / "bundle")
    engine = built.bundle.path / "model.onnx"
    return Tiny(
        bundle=built.bundle,
        tree=json.loads((built.bundle.path / "validation.json").read_text(encoding="utf-8")),
        merging_blocks=tuple(built.compiled.program.merging_blocks),
        dense_BC=dense_BC,
        onnx_BC=np.concatenate([run_batch(engine, part) for part in batches(images_BCHW)]),
        labels_B=labels_B,
    )


def run_batch(path: Path, images_BCHW: Array) -> Array:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    logits: Array = session.run(None, {session.get_inputs()[0].name: images_BCHW})[0]
    return logits


def top(logits_BC: Array, labels_B: Array, k: int) -> float:
    """Percent of rows whose label is among the k highest."""
    best_BK = np.argsort(-logits_BC, axis=1)[:, :k]
    return 100 * float(np.mean([label in best for label, best in zip(labels_B, best_BK, strict=True)]))


def unit(rows_BC: Array) -> Array:
    scaled: Array = rows_BC / np.linalg.norm(rows_BC.astype(np.float64), axis=1, keepdims=True)
    return scaled


def softmax(logits_BC: Array) -> Array:
    powers_BC = np.exp(logits_BC.astype(np.float64))
    probabilities: Array = powers_BC / powers_BC.sum(axis=1, keepdims=True)
    return probabilities


# A classifier ---------------------------------------------------------------------------------------


def test_images_are_counted_and_the_damaged_one_is_named(tiny: Tiny) -> None:
    assert tiny.tree["data"]["name"] == "labels.csv"
    assert tiny.tree["data"]["n"] == COUNT
    assert [each["name"] for each in tiny.tree["data"]["unreadable"]] == ["damaged.png"]
    assert tiny.tree["data"]["unreadable"][0]["reason"]


def test_accuracy_is_that_of_the_outputs_and_labels(tiny: Tiny) -> None:
    assert tiny.tree["task"] == "classification"
    assert tiny.tree["accuracy"]["dense"]["top1"] == 75.0
    for name, logits_BC in (("dense", tiny.dense_BC), ("onnx", tiny.onnx_BC)):
        expected = {"top1": top(logits_BC, tiny.labels_B, 1), "top5": top(logits_BC, tiny.labels_B, 5)}
        assert tiny.tree["accuracy"][name] == pytest.approx(expected | {"n": COUNT})


def test_difference_is_paired(tiny: Tiny) -> None:
    dense_B, onnx_B = (each.argmax(1) == tiny.labels_B for each in (tiny.dense_BC, tiny.onnx_BC))
    lost, gained = int((dense_B & ~onnx_B).sum()), int((onnx_B & ~dense_B).sum())
    assert lost != gained, "this model does not show a difference"
    tails = [comb(lost + gained, k) for k in range(min(lost, gained) + 1)]

    difference = tiny.tree["difference"]["onnx"]

    assert difference["top1"] == pytest.approx(100 * (gained - lost) / COUNT)
    assert difference["p_value"] == pytest.approx(min(1.0, 2 * sum(tails) / 2 ** (lost + gained)))
    low, high = difference["interval"]
    deviation = 100 * np.std(onnx_B.astype(float) - dense_B) / np.sqrt(COUNT)
    assert low == pytest.approx(difference["top1"] - 1.96 * deviation, abs=deviation)
    assert high == pytest.approx(difference["top1"] + 1.96 * deviation, abs=deviation)


def test_fidelity_is_that_of_the_outputs(tiny: Tiny) -> None:
    cosines_B = (unit(tiny.dense_BC) * unit(tiny.onnx_BC)).sum(axis=1)
    dense_BC, onnx_BC = softmax(tiny.dense_BC), softmax(tiny.onnx_BC)
    near_BK, also_BK = (
        np.argsort(-(unit(each) @ unit(each).T - 9 * np.eye(COUNT)), axis=1)[:, :10]
        for each in (tiny.dense_BC, tiny.onnx_BC)
    )
    shared = np.mean([len(set(one) & set(two)) / 10 for one, two in zip(near_BK, also_BK, strict=True)])

    found = tiny.tree["fidelity"]["onnx"]

    assert found["n"] == found["neighbour_n"] == COUNT
    assert found["not_finite"] == 0
    agreement = 100 * (tiny.dense_BC.argmax(1) == tiny.onnx_BC.argmax(1)).mean()
    assert 0 < agreement < 100, "this model does not show a disagreement"
    assert found["top1_agreement"] == pytest.approx(agreement)
    assert found["cosine_mean"] == pytest.approx(cosines_B.mean(), abs=1e-6)
    assert found["cosine_min"] == pytest.approx(cosines_B.min(), abs=1e-6)
    assert found["kl"] == pytest.approx((dense_BC * np.log(dense_BC / onnx_BC)).sum(axis=1).mean(), rel=1e-4)
    assert found["neighbour_overlap"] == pytest.approx(100 * shared)


def test_error_is_told_of_every_block_that_merges(tiny: Tiny) -> None:
    tokens = tiny.bundle.manifest.schedule.tokens

    assert [each["block"] for each in tiny.tree["blocks"]] == list(tiny.merging_blocks)
    assert [each["tokens"] for each in tiny.tree["blocks"]] == [
        tokens[each + 1] for each in tiny.merging_blocks
    ]
    assert all(0 < each["relative_error"] < 2 for each in tiny.tree["blocks"])


def test_files_of_the_bundle_hold_what_was_measured(tiny: Tiny) -> None:
    assert "validation.json" in exporter.load_bundle(tiny.bundle.path).manifest.files
    assert sorted(path.name for path in tiny.bundle.path.iterdir() if path.is_dir()) == []


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("kind", ["float", "uint8"])
def test_an_engine_is_given_what_its_recipe_takes(kind: str, layout: str) -> None:
    pixels_BCHW = np.random.default_rng(1).integers(0, 256, (2, 3, 24, 24), dtype=np.uint8)
    outputs: dict[str, Array] = {
        "logits": np.ones((2, 5), np.float16),
        "features": np.zeros((2, 7), np.float32),
    }
    runner = FakeRunner(compute=lambda images: outputs)
    recipe = Recipe(model=ModelRequest(model="m"), input=kind, layout=layout)  # type: ignore[arg-type]
    got = engine_contender(recipe, runner, PREPROCESS)(pixels_BCHW)

    mean_C11, std_C11 = (np.array(each)[:, None, None] for each in (PREPROCESS.mean, PREPROCESS.std))
    expected = pixels_BCHW if kind == "uint8" else (pixels_BCHW / 255 - mean_C11) / std_C11
    expected = expected.transpose(0, 2, 3, 1) if layout == "nhwc" else expected
    np.testing.assert_allclose(runner.seen[0], expected, rtol=1e-5, atol=1e-6)
    assert runner.seen[0].dtype == (np.uint8 if kind == "uint8" else np.float32)
    assert got.shape == (2, 5)
    assert got.dtype == np.float32


# Two towers -----------------------------------------------------------------------------------------


def class_rows(clip: ClipDigits, embed: Any) -> Array:
    """A row per class: mean over the templates of the prompts' directions, then its direction."""
    assert clip.shipped.class_names is not None
    rows = [
        unit(embed([template.format(name) for template in clip.shipped.templates])).mean(axis=0)
        for name in clip.shipped.class_names
    ]
    return unit(np.stack(rows))


def recalls(queries_QC: Array, gallery_GC: Array, right_QG: Array) -> dict[str, float]:
    order_QG = np.argsort(-(unit(queries_QC) @ unit(gallery_GC).T), axis=1)
    found_QG = np.take_along_axis(right_QG, order_QG, axis=1)
    return {f"r{k}": 100 * float(found_QG[:, :k].any(axis=1).mean()) for k in (1, 5, 10)}


@pytest.fixture(scope="module")
def clip_tree(clip: ClipDigits) -> dict[str, Any]:
    tree = json.loads((clip.bundle.path / "validation.json").read_text(encoding="utf-8"))
    assert isinstance(tree, dict)
    return tree


def one_of(count: int) -> float:
    """Percent that one query is, which a near-tie may decide the other way on another machine."""
    return 100.0 / count + 1e-9


def test_zero_shot_accuracy_is_that_of_the_two_towers(clip: ClipDigits, clip_tree: dict[str, Any]) -> None:
    labels_B = clip.shipped.labels
    sides = (("dense", clip.dense_BC, clip.embed_eagerly), ("onnx", clip.onnx_BC, clip.embed_by_engine))

    assert clip_tree["task"] == "zero-shot"
    winners = []
    for name, images_BC, embed in sides:
        logits_BK = unit(images_BC) @ class_rows(clip, embed).T
        winners.append(logits_BK.argmax(1))
        found = clip_tree["accuracy"][name]
        assert found["n"] == len(labels_B)
        assert found["top1"] == pytest.approx(top(logits_BK, labels_B, 1), abs=one_of(len(labels_B)))
        assert found["top5"] == pytest.approx(top(logits_BK, labels_B, 5), abs=one_of(len(labels_B)))
    agreement = 100 * (winners[0] == winners[1]).mean()
    assert 50 < agreement < 100
    assert clip_tree["fidelity"]["onnx"]["top1_agreement"] == pytest.approx(
        agreement, abs=one_of(len(labels_B))
    )
    assert clip_tree["fidelity"]["onnx"]["kl"] is None


def test_retrieval_is_that_of_the_two_towers(clip: ClipDigits, clip_tree: dict[str, Any]) -> None:
    captions = clip.shipped.captions
    assert captions is not None
    texts = sorted(set(captions))
    assert 10 < len(texts) < len(captions), "captions are shared by several scans"
    right_IT = np.array([[text == caption for text in texts] for caption in captions])
    sides = (("dense", clip.dense_BC, clip.embed_eagerly), ("onnx", clip.onnx_BC, clip.embed_by_engine))

    for name, images_IC, embed in sides:
        found = clip_tree["retrieval"][name]
        texts_TC = embed(texts)
        assert (found["images"], found["texts"]) == (len(captions), len(texts))
        assert found["text_to_image"] == pytest.approx(
            recalls(texts_TC, images_IC, right_IT.T), abs=one_of(len(texts))
        )
        assert found["image_to_text"] == pytest.approx(
            recalls(images_IC, texts_TC, right_IT), abs=one_of(len(captions))
        )


def test_embeddings_of_scans_are_compared_by_direction(clip: ClipDigits, clip_tree: dict[str, Any]) -> None:
    cosines_B = (unit(clip.dense_BC) * unit(clip.onnx_BC)).sum(axis=1)

    found = clip_tree["fidelity"]["onnx"]

    assert found["cosine_mean"] == pytest.approx(cosines_B.mean(), abs=1e-4)
    assert found["cosine_min"] == pytest.approx(cosines_B.min(), abs=1e-3)
    assert cosines_B.min() < 0.999, "merging shows"


# Gates ----------------------------------------------------------------------------------------------


def measured(*, drop: float = 0.0, agreement: float | None = None) -> ValidationRecord:
    whole = Accuracy(top1=90.0, top5=99.0, n=100)
    difference = Difference(top1=-drop, interval=(-drop, -drop), p_value=1.0)
    found = Fidelity(
        n=100,
        not_finite=0,
        top1_agreement=agreement,
        kl=None,
        cosine_mean=1.0,
        cosine_min=1.0,
        neighbour_overlap=None,
        neighbour_n=1,
    )
    return ValidationRecord(
        data=DataRecord(name="d", n=100),
        accuracy={"dense": whole, "onnx": replace(whole, top1=90.0 - drop)},
        difference={"onnx": difference},
        fidelity={"onnx": found},
    )


@pytest.mark.parametrize(("drop", "limit"), [(1.0, 1.0), (-3.0, 0.0), (0.0, 0.0), (2.0, None)])
def test_a_loss_up_to_the_limit_is_allowed(drop: float, limit: float | None) -> None:
    require_measured(Validation(accuracy=AccuracyGate(max_drop=limit)), measured(drop=drop))


def test_a_loss_above_the_limit_fails_with_the_figure() -> None:
    gates = Validation(accuracy=AccuracyGate(max_drop=1.0))

    with pytest.raises(GateError, match=r"onnx loses 1\.25 points of top-1, expected at most 1;") as raised:
        require_measured(gates, measured(drop=1.25))

    assert raised.value.exit_status == 6


@pytest.mark.parametrize("limit", [None, 5.0])
def test_as_many_images_as_allowed_may_need_more_tokens_than_there_are_slots(limit: float | None) -> None:
    require_measured(Validation(overflow=OverflowGate(max=limit)), overflowing(5.0))


def test_capacity_below_the_need_fails_with_what_would_be_enough() -> None:
    gates = Validation(overflow=OverflowGate(max=5.0))

    with pytest.raises(
        GateError,
        match=r"^capacity below the observed need: 5\.50 % of 200 images .* 40 tokens .* block 2 .* leave it 59",
    ):
        require_measured(gates, overflowing(5.5))


def overflowing(percent: float) -> ValidationRecord:
    need = SlotNeed(block=2, slots=40, n=200, overflow=percent, most=60, nearly_all=59)
    return replace(measured(), slots=(need,))


@pytest.mark.parametrize(("agreement", "told"), [(98.99, "98.99 %"), (0.0, "0.00 %")])
def test_too_little_agreement_fails_with_the_figure(agreement: float, told: str) -> None:
    gates = Validation(agreement=AgreementGate(min=99.0))

    with pytest.raises(GateError, match=rf"onnx agrees .* on {told} .* at least 99 %") as raised:
        require_measured(gates, measured(agreement=agreement))

    assert raised.value.exit_status == 6


@pytest.mark.parametrize(("agreement", "least"), [(99.0, 99.0), (100.0, 100.0), (0.0, 0.0), (None, None)])
def test_agreement_from_the_limit_on_is_enough(agreement: float | None, least: float | None) -> None:
    require_measured(Validation(agreement=AgreementGate(min=least)), measured(agreement=agreement))
