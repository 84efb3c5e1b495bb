"""What an export leaves on the disk and says about it."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from exporter import load_bundle
from tests.cli.commands import BUNDLE_FILES, MANIFEST_KEYS, FirstCommand, manifest, run, tree

MACHINE_TRACES = (
    b"/work",
    b"/tmp",
    b"/root",
    b"/home",
    b"site-packages",
    b'File "',
    b"stack_trace",
    b"Traceback",
)


def test_first_command_ends_in_a_measured_bundle(first_command: FirstCommand) -> None:
    outcome, folder = first_command

    assert outcome.status == 0, outcome.err
    assert outcome.err == ""
    document = outcome.document
    assert document.keys() >= MANIFEST_KEYS | {"bundle", "accuracy", "difference"}
    assert document["schedule"] == {
        "requested": "constant r=4",
        "merged": [4] * 8,
        "tokens": [65, 61, 57, 53, 49, 45, 41, 37, 33],
    }
    assert document["accuracy"]["dense"]["top1"] >= 97
    assert document["accuracy"]["dense"]["n"] >= 450
    assert document["accuracy"]["onnx"].keys() == {"top1", "top5", "n"}
    low, high = document["difference"]["onnx"]["interval"]
    assert low <= document["difference"]["onnx"]["top1"] <= high
    assert document["bundle"] == "artifacts/vit_digits-tome-r4"
    files = (*BUNDLE_FILES, "validation.json")
    made = ("artifacts", document["bundle"], *(f"{document['bundle']}/{name}" for name in files))
    assert sorted(tree(folder)) == sorted(made)


def test_manifest_holds_the_contract(vit_bundle: Path) -> None:
    found = manifest(vit_bundle)

    assert found.keys() >= MANIFEST_KEYS
    assert found["schema_version"] == 1
    assert found["model"].keys() == {"source", "id", "weights"}
    assert found["model"]["weights"].keys() == {"kind", "sha256"}
    assert found["method"] == "tome"
    assert found["schedule"]["merged"] == [4, 4, 4, 4]
    assert found["schedule"]["tokens"] == [37, 33, 29, 25, 21]
    assert found["gmacs"].keys() == {"dense", "reduced", "ratio", "executed", "blocks"}
    assert found["inputs"] == [{"name": "images", "dtype": "float32", "shape": [1, 3, 24, 24]}]
    assert found["outputs"] == [{"name": "logits", "dtype": "float32", "shape": [1, 10]}]
    assert found["preprocess"] == json.loads((vit_bundle / "preprocess.json").read_text(encoding="utf-8"))
    assert found["artifacts"]["onnx"].keys() == {"file", "sha256", "precision", "opset", "details", "options"}
    assert found["artifacts"]["onnx"]["options"] == {}
    assert found["parity"]["onnx"].keys() == {
        "max_abs_error",
        "mean_abs_error",
        "cosine",
        "match_agreement",
        "passed",
    }
    assert found["parity"]["onnx"]["passed"] is True
    assert len(found["parity"]["onnx"]["match_agreement"]) >= 3
    assert found["toolchain"].keys() >= {"torch", "onnx", "onnxruntime"}


def test_manifest_gmacs_follow_the_published_formula(vit_bundle: Path) -> None:
    width, hidden, tokens = 32, 128, [37, 33, 29, 25, 21]
    blocks = sum(
        4 * n * width**2 + 2 * n**2 * width + 2 * after * width * hidden for n, after in pairwise(tokens)
    )
    patches_and_head = 36 * 3 * 4 * 4 * width + width * 10

    assert manifest(vit_bundle)["gmacs"]["reduced"] == pytest.approx(
        (blocks + patches_and_head) / 1e9, rel=1e-9
    )


def test_sample_holds_a_real_input_and_its_eager_outputs(vit_bundle: Path) -> None:
    sample = load_bundle(vit_bundle).sample()

    assert list(sample) == ["images", "logits"]
    assert sample["images"].shape == (1, 3, 24, 24)
    assert sample["images"].std() > 0.1
    outputs = load_bundle(vit_bundle).runner("onnx")(sample["images"])
    np.testing.assert_allclose(outputs["logits"], sample["logits"], atol=1e-4)


def test_bundle_says_nothing_about_the_machine(vit_bundle: Path, digits_bundle: Path, vit_dir: Path) -> None:
    needles = (*MACHINE_TRACES, str(vit_dir.parent).encode(), str(vit_bundle.parent).encode())
    contents = {
        f"{bundle}/{name}": data
        for bundle in (vit_bundle, digits_bundle)
        for name, data in tree(bundle).items()
    }

    found = [
        (name, needle) for name, data in contents.items() for needle in needles if data and needle in data
    ]

    assert found == []


def test_quiet_prints_only_where_the_bundle_is(vit_dir: Path, tmp_path: Path) -> None:
    outcome = run(f"hf:{vit_dir}", "--r", "0", "--out", tmp_path / "dense", "--quiet")

    assert outcome.status == 0
    assert outcome.out.strip() == str(tmp_path / "dense")
    assert outcome.err == ""
    assert manifest(tmp_path / "dense")["schedule"]["merged"] == [0, 0, 0, 0]
    counts = manifest(tmp_path / "dense")["gmacs"]
    assert counts["ratio"] == 1.0
    assert counts["executed"] < counts["dense"] == counts["reduced"]


def test_summary_and_progress_say_what_was_done(vit_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "a[" / "b]"  # which is no markup

    outcome = run("export", f"hf:{vit_dir}", "--r", "40", "--out", folder)

    assert outcome.status == 0, outcome.err
    assert "a[/b]" in "".join(outcome.out.split())
    for fact in ("37 to", "GMACs", "parity onnx", "cosine", "capped", "MB"):
        assert fact in outcome.out
    assert "schedule capped" in " ".join(outcome.out.split())
    for stage in ("load", "capture", "plan", "rewrite", "emit onnx", "verify onnx", "bundle"):
        assert f"✓ {stage}" in outcome.err
    assert "error" not in outcome.err.replace("max error", "")
    guess, capped = manifest(folder)["notes"]
    assert guess.startswith("preprocessing guessed: there is no preprocessor_config.json")
    assert capped.startswith("schedule capped")
    assert manifest(folder)["schedule"]["merged"] == [18, 9, 4, 2]
