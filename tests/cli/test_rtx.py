"""An engine of TensorRT for RTX, built on a machine that has no GPU to run it."""

from pathlib import Path

import pytest

from tests.cli.commands import TINY, manifest, run

NOTE = "model_rtx.engine is built and not verified: no GPU that torch can use"


@pytest.fixture(scope="module")
def bundle(rtx: object, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle for that engine alone."""
    out = tmp_path_factory.mktemp("rtx") / "bundle"
    assert run(*TINY, "--r", "4", "--target", "trt-rtx", "--out", out, "--quiet").status == 0
    return out


def test_engine_is_in_the_bundle_and_reads_as_unverified(bundle: Path) -> None:
    found = manifest(bundle)

    assert found["artifacts"].keys() == {"trt-rtx", "trt-rtx-onnx"}
    assert found["parity"].keys() == {"trt-rtx-onnx"}
    assert found["artifacts"]["trt-rtx"]["details"]["verified"] is False
    assert (bundle / found["artifacts"]["trt-rtx"]["file"]).stat().st_size > 1000
    assert [note for note in found["notes"] if NOTE in note]
    assert {"tensorrt-rtx-cu13-bindings", "tensorrt-rtx-cu13-libs"} <= found["toolchain"].keys()


def test_validation_verifies_what_runs_here_and_says_what_does_not(bundle: Path) -> None:
    outcome = run("validate", bundle, "--json")

    assert outcome.status == 7
    assert outcome.document["parity"].keys() == {"trt-rtx-onnx"}
    assert outcome.document["failed"].keys() == {"trt-rtx"}
    assert "model_rtx.engine: no GPU that torch can use" in outcome.err


def test_model_passes_its_own_lint(bundle: Path) -> None:
    outcome = run("lint", bundle / "model_rtx.onnx", "--for", "trt-rtx", "--json")

    assert (outcome.status, outcome.document["counts"]["error"]) == (0, 0)
