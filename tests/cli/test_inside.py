"""A tower inside a bigger checkpoint, from the command line to the bundle."""

import json
from pathlib import Path

import torch

from exporter.bundle import TokensRead, load_bundle
from exporter.errors import UnsupportedGraphError
from exporter.models.shipped.digits import DIGITS_PREPROCESS
from tests.cli.commands import run
from tests.support.hf_inside import llava


def test_a_bundle_of_llava_says_how_many_tokens_its_language_model_reads(tmp_path: Path) -> None:
    torch.manual_seed(0)
    llava().save_pretrained(tmp_path / "llava")
    (tmp_path / "look.json").write_text(json.dumps(DIGITS_PREPROCESS.to_dict()))
    words = (
        f"hf:{tmp_path / 'llava'}",
        "--preprocess",
        str(tmp_path / "look.json"),
        "--out",
        str(tmp_path / "out"),
    )
    zip_words = ("--method", "visionzip", "--keep-rate", "0.5", "--at", "1")

    refused = run(*words, *zip_words)
    assert refused.status == UnsupportedGraphError.exit_status
    assert "--outputs reduced" in refused.err
    exported = run(*words, *zip_words, "--outputs", "reduced", "--target", "onnx", "--target", "openvino")

    assert exported.status == 0
    assert "8 of 16 tokens, by the other parts of LlavaForConditionalGeneration" in exported.out
    manifest = load_bundle(tmp_path / "out").manifest
    assert manifest.tokens_read == TokensRead(by="LlavaForConditionalGeneration", dense=16, given=8)
    assert manifest.parity.keys() == {"onnx", "openvino"}
    assert [output.shape[1:] for output in manifest.outputs] == [(8, 32)]
