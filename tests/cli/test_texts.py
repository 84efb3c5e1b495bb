"""Text encoders from a checkpoint on the disk to vectors of texts."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
import torch._inductor
from scipy.stats import spearmanr

from exporter import load_bundle
from exporter.errors import UsageError
from exporter.models import ModelRequest, TextReader, load
from exporter.pipeline import plan_export
from exporter.pipeline.measure_texts import write_dense
from exporter.pipeline.sweep_point import BuildPoint
from exporter.recipe import Recipe, Validation
from exporter.schedule import ScheduleRequest
from exporter.sweep import Point
from exporter.targets import Array
from exporter.validation import read_texts
from tests.cli.commands import Outcome, manifest, run
from tests.support.compiled import QUICKER
from tests.support.once import once
from tests.support.text_encoders import LENGTH, save_encoder

TEXTS = ["the film", "we saw a very good film it not bad", "good"]


def exported(model: Path, out: Path, options: str, *more: str, length: str = str(LENGTH)) -> Outcome:
    return run(f"hf:{model}", "--length", length, *options.split(), "--out", str(out), *more)


def validated(model: Path, table: Path) -> tuple[str, ...]:
    return "--model", f"hf:{model}", "--data", str(table), "--no-save"


def dense_vectors(model: Path) -> Array:
    """What the checkpoint makes of the texts."""
    loaded = load(ModelRequest(model=f"hf:{model}", length=LENGTH))
    assert isinstance(loaded.module, torch.nn.Module) and loaded.tokenizer is not None
    inputs = TextReader(loaded.tokenizer, LENGTH, tuple(loaded.inputs))(TEXTS)
    vectors: Array = loaded.module(*map(torch.from_numpy, inputs.values())).numpy()
    return vectors


@pytest.fixture(scope="session")
def bert_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def save(folder: Path) -> None:
        save_encoder(folder, "BertModel", pooling="mean", num_hidden_layers=2)

    return once(tmp_path_factory, "tiny-bert", save)


@pytest.fixture(scope="session")
def text_bundle(bert_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    def export(folder: Path) -> None:
        options = "--r 3 --target onnx --target openvino --dynamic-batch"
        outcome = exported(bert_dir, folder / "bundle", options)
        assert outcome.status == 0, outcome.err

    return once(tmp_path_factory, "text-bundle", export) / "bundle"


@pytest.fixture(scope="session")
def lengths_bundle(bert_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    def export(folder: Path) -> None:
        outcome = exported(bert_dir, folder / "bundle", "--r 3 --dynamic-batch", length=f"8,{LENGTH}")
        assert outcome.status == 0, outcome.err

    return once(tmp_path_factory, "lengths-bundle", export) / "bundle"


def test_bundle_of_a_text_encoder_takes_ids_and_a_mask(text_bundle: Path) -> None:
    found = manifest(text_bundle)

    assert found["tower"] == "text"
    assert [each["name"] for each in found["inputs"]] == ["input_ids", "attention_mask", "token_type_ids"]
    assert found["schedule"]["tokens"] == [16, 13, 10]
    assert found["parity"].keys() == {"onnx", "openvino"}


def test_text_encoder_that_merges_is_packed_with_a_check_of_its_mask(
    text_bundle: Path, lengths_bundle: Path, tmp_path: Path
) -> None:
    outcome = run("pack", text_bundle, "--for", "triton", "--out", tmp_path, "--name", "bert", "--json")

    assert outcome.status == 0, outcome.err
    assert outcome.document["backend"] == "python"
    settings = json.loads((tmp_path / "bert" / "1" / "settings.json").read_text())
    assert (settings["masks"], settings["batch"]) == (["attention_mask"], None)
    ids = np.fromfile(tmp_path / "bert" / "warmup" / "input_ids", np.int64)
    assert ids.tolist() == load_bundle(text_bundle).sample()["input_ids"][0].tolist()

    refused = run("pack", lengths_bundle, "--for", "triton", "--out", tmp_path)
    assert refused.status == 2
    assert "expected engines of one length, got 8, 16" in refused.complaint


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_padded_batch_of_texts_equals_the_texts_one_by_one(text_bundle: Path, target: str) -> None:
    encode = load_bundle(text_bundle).encoder(target)

    together = encode(TEXTS)

    assert together.shape == (3, 32)
    np.testing.assert_allclose(
        together, np.concatenate([encode([text]) for text in TEXTS]), rtol=0, atol=1e-5
    )


@pytest.mark.parametrize(
    ("texts", "complaint"),
    [
        pytest.param(["good " * 15], "has 17 tokens, and the engine takes 16", id="too-long"),
        pytest.param(["good", " "], "text 2 of 2 is empty", id="empty"),
        pytest.param([], "expected a list of at least one text", id="none"),
    ],
)
def test_encoder_refuses_texts_that_it_cannot_take(
    text_bundle: Path, texts: list[str], complaint: str
) -> None:
    with pytest.raises(UsageError, match=complaint):
        load_bundle(text_bundle).encoder()(texts)


@pytest.mark.parametrize(
    "mask",
    [
        pytest.param([1, 1, 0, 1], id="hole"),
        pytest.param([0, 1, 1, 1], id="padding-in-front"),
        pytest.param([0, 0, 0, 0], id="no-tokens"),
    ],
)
def test_runner_refuses_a_mask_that_is_not_ones_and_then_zeros(text_bundle: Path, mask: list[int]) -> None:
    bundle = load_bundle(text_bundle)
    rows = {each.name: np.ones((1, LENGTH), dtype=np.int64) for each in bundle.manifest.inputs}
    rows["attention_mask"] = np.array([mask + [0] * (LENGTH - 4)])

    with pytest.raises(UsageError, match="expected ones for the tokens of every text, and then zeros"):
        bundle.runner()(rows)


def test_texts_run_on_the_shortest_engine_of_a_bundle_that_takes_them(lengths_bundle: Path) -> None:
    bundle = load_bundle(lengths_bundle)
    short, long = bundle.lengths()
    names = tuple(each.name for each in long.manifest.inputs)
    inputs = TextReader((lengths_bundle / "tokenizer.json").read_bytes(), LENGTH, names)(TEXTS[1:2])

    found = bundle.encoder()(TEXTS)

    assert bundle.manifest.lengths == (8, LENGTH)
    assert [each.manifest.schedule.tokens for each in (short, long)] == [(8, 5, 3), (16, 13, 10)]
    expected = [short.encoder()(TEXTS[:1]), long.runner()(inputs)["embedding"], short.encoder()(TEXTS[2:])]
    np.testing.assert_allclose(found, np.concatenate(expected), rtol=0, atol=1e-5)
    with pytest.raises(UsageError, match="has 11 tokens, and the engine takes 8"):
        short.encoder()(TEXTS)


def test_engines_for_several_lengths_have_their_weights_once(lengths_bundle: Path) -> None:
    weights = (lengths_bundle / "shorter/model.onnx.data").stat().st_size
    kept = [each.const_value for each in ir.load(lengths_bundle / "model.onnx").graph.initializers.values()]

    own = sum(tensor.nbytes for tensor in kept if tensor and not isinstance(tensor, ir.ExternalTensor))

    assert 0 < own < 0.2 * weights


def test_engines_of_every_length_are_verified_and_measured_as_one(
    bert_dir: Path, lengths_bundle: Path, tmp_path: Path
) -> None:
    table = tmp_path / "texts.csv"
    table.write_text("\n".join(["text", *TEXTS]))

    outcome = run("validate", str(lengths_bundle), *validated(bert_dir, table), "--json")

    assert outcome.status == 0, outcome.err
    assert outcome.document["shorter"]["8"]["onnx"]["passed"]
    cosines = (load_bundle(lengths_bundle).encoder()(TEXTS) * dense_vectors(bert_dir)).sum(axis=1)
    assert outcome.document["fidelity"]["onnx"]["cosine_min"] == pytest.approx(cosines.min(), abs=1e-5)


def test_engines_in_integers_are_calibrated_on_texts(bert_dir: Path, tmp_path: Path) -> None:
    table = tmp_path / "texts.csv"
    table.write_text("\n".join(["text,label", *(f"{text},any" for text in (*TEXTS, "good " * 40))]))

    outcome = exported(bert_dir, tmp_path / "out", f"--precision int8 --calibration {table}")

    assert outcome.status == 0, outcome.err
    assert manifest(tmp_path / "out")["artifacts"]["onnx"]["precision"] == "int8"
    cosines = (load_bundle(tmp_path / "out").encoder()(TEXTS) * dense_vectors(bert_dir)).sum(axis=1)
    assert 0.98 < cosines.min() < 1 - 1e-6


def test_calibration_of_a_text_encoder_needs_texts(bert_dir: Path) -> None:
    outcome = run(f"hf:{bert_dir}", "--length", str(LENGTH), "--precision", "int8")

    assert outcome.status == 2
    assert "precision int8 needs texts like those that will be served" in outcome.err


def test_encoder_cuts_long_texts_where_that_is_asked_for(text_bundle: Path) -> None:
    encode = load_bundle(text_bundle).encoder(truncate=True)

    np.testing.assert_allclose(encode(["good " * 40]), encode(["good " * 14]), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        pytest.param(("--length", "41"), "has positions for 40 tokens", id="length"),
        pytest.param(("--length", "8,41"), "has positions for 40 tokens", id="length-of-several"),
        pytest.param(("--length", "16,8"), "expected several lengths in ascending order", id="order"),
        pytest.param(
            ("--image-size", "32"), "--image-size says nothing about a text encoder", id="image-size"
        ),
        pytest.param(
            ("--outputs", "dense"), "--outputs dense says nothing about a text encoder", id="outputs"
        ),
        pytest.param(("--method", "ats", "--r", "2"), "ats: it has no rule for padding", id="method"),
    ],
)
def test_export_of_a_text_encoder_refuses(bert_dir: Path, words: tuple[str, ...], complaint: str) -> None:
    outcome = run(f"hf:{bert_dir}", *words)

    assert outcome.status == 2
    assert complaint in outcome.err


def test_bundle_of_a_text_encoder_is_validated_and_reported(text_bundle: Path, tmp_path: Path) -> None:
    own = shutil.copytree(text_bundle, tmp_path / "bundle")

    assert run("validate", str(own)).status == 0
    assert run("report", str(own)).status == 0
    assert "A text tower has no image to draw." in (own / "report.md").read_text(encoding="utf-8")


def test_texts_with_labels_give_an_accuracy(tmp_path: Path) -> None:
    folder = save_encoder(
        tmp_path / "model", "BertForSequenceClassification", num_labels=3, num_hidden_layers=1
    )
    table = tmp_path / "texts.csv"
    table.write_text("text,label\n" + "".join(f'"{text}",{place}\n' for place, text in enumerate(TEXTS)))

    outcome = exported(folder, tmp_path / "out", "--r 2 --dynamic-batch --json", "--data", str(table))

    assert outcome.status == 0, outcome.err
    assert outcome.document["accuracy"]["dense"]["n"] == 3
    assert outcome.document["difference"].keys() == {"onnx"}
    encode = load_bundle(tmp_path / "out").encoder()
    agreed = np.mean(encode(TEXTS).argmax(axis=1) == np.arange(3))
    assert outcome.document["accuracy"]["onnx"]["top1"] == pytest.approx(100 * agreed)


def test_texts_of_an_encoder_are_compared_with_the_dense_model(
    bert_dir: Path, text_bundle: Path, tmp_path: Path
) -> None:
    pairs = [(TEXTS[0], TEXTS[1]), (TEXTS[1], TEXTS[2]), (TEXTS[2], TEXTS[0]), (TEXTS[1], TEXTS[1])]
    scores = [2.5, 1.0, 0.5, 5.0]
    table = tmp_path / "pairs.csv"
    rows = [f"{first},{second},{score}" for (first, second), score in zip(pairs, scores, strict=True)]
    table.write_text("\n".join(["text_a,text_b,score", *rows]))

    outcome = run("validate", str(text_bundle), *validated(bert_dir, table), "--json")

    assert outcome.status == 0, outcome.err
    assert outcome.document["data"] == {"kind": "texts", "n": 3, "name": "pairs.csv", "unreadable": []}
    assert outcome.document["fidelity"].keys() == {"onnx", "openvino"}
    encode = load_bundle(text_bundle).encoder()
    first, second = (encode([pair[side] for pair in pairs]) for side in (0, 1))  # of unit length
    expected = spearmanr((first * second).sum(axis=1), scores).statistic
    assert outcome.document["similarity"]["onnx"] == {"spearman": pytest.approx(expected), "n": 4}
    assert outcome.document["similarity_difference"].keys() == {"onnx", "openvino"}


def test_point_of_a_sweep_is_measured_on_texts_against_outputs_of_before(
    bert_dir: Path, tmp_path: Path
) -> None:
    table = tmp_path / "texts.csv"
    table.write_text("\n".join(["text", *TEXTS]))
    recipe = Recipe(
        model=ModelRequest(model=f"hf:{bert_dir}", length=LENGTH),
        validate=Validation(data=str(table)),
        dynamic_batch=True,
    )
    planned = plan_export(recipe)
    write_dense(planned, read_texts(table, None), tmp_path / "outputs")
    dense = np.load(tmp_path / "outputs/dense.npy")
    build = BuildPoint(recipe=recipe, bundles=tmp_path / "bundles", outputs=tmp_path / "outputs")

    built = build(Point(schedule=ScheduleRequest(r=3)))

    (bundle,) = (tmp_path / "bundles").iterdir()
    cosines = (load_bundle(bundle).encoder()(TEXTS) * dense).sum(axis=1)
    assert built.quality.fidelity is not None
    assert built.quality.fidelity.cosine_mean == pytest.approx(cosines.mean(), abs=1e-5)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        pytest.param("words\nthe film\n", "expected the header text", id="header"),
        pytest.param("text\n" + "film " * 30 + "\n", "has 32 tokens, and the engine takes 16", id="too-long"),
    ],
)
def test_tables_that_are_no_texts_for_the_engine_are_refused(
    bert_dir: Path, text_bundle: Path, tmp_path: Path, content: str, complaint: str
) -> None:
    table = tmp_path / "texts.csv"
    table.write_text(content)

    outcome = run("validate", str(text_bundle), *validated(bert_dir, table))

    assert outcome.status == 2
    assert complaint in outcome.err


def test_compiled_engine_equals_eager_pytorch_on_full_and_on_padded_texts(tmp_path: Path) -> None:
    folder = save_encoder(tmp_path / "model", "DistilBertForSequenceClassification", n_layers=1)

    with torch._inductor.config.patch(QUICKER):
        outcome = exported(folder, tmp_path / "out", "--r 3 --target aoti --batch 2")

    assert outcome.status == 0, outcome.err
    parity = json.loads((tmp_path / "out" / "parity.json").read_text(encoding="utf-8"))
    assert parity["aoti"]["comparisons"].keys() == {"noise/logits", "short/logits"}
