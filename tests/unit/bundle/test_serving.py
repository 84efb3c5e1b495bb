"""A bundle runs where nothing that makes engines is installed."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from exporter.bundle import Bundle
from exporter.errors import BundleError
from exporter.recipe import load_recipe
from exporter.targets.onnx.options import OnnxOptions
from exporter.targets.openvino.options import OpenVinoOptions
from tests.support.serving_bundle import serving_bundle

ROOT = Path(__file__).resolve().parents[3]

BLOCK = """
import sys

BLOCKED = {"torch", "torchvision", "timm", "onnx", "onnx_ir", "onnxscript", "transformers", "open_clip", "sklearn",
           "scipy", "matplotlib", "jinja2", "safetensors", "huggingface_hub", "click", "rich", "psutil"}


class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(name + " is not installed here", name=name)


sys.meta_path.insert(0, Blocked())
"""

SERVE = f"""{BLOCK}
import numpy as np
import exporter

bundle = exporter.load_bundle(sys.argv[1])
sample = bundle.sample()
outputs = bundle.runner(sys.argv[2])(sample["images"])
assert outputs.keys() == {{"logits"}}
assert np.abs(outputs["logits"] - sample["logits"]).max() < 1e-4
assert bundle.preprocess().image_size == (32, 32)
"""


def python(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return serving_bundle(tmp_path_factory)


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_an_engine_runs_without_torch_timm_and_onnx(bundle: Bundle, target: str) -> None:
    done = python(SERVE, str(bundle.path), target)

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("missing", ["click", "torch"])
def test_command_line_without_the_compiler_says_how_to_install_it(missing: str) -> None:
    block = BLOCK.replace("BLOCKED = {", f"BLOCKED = {{{missing!r}}} or {{")
    done = python(
        block
        + "\nfrom exporter.__main__ import run\nsys.argv[1:] = ['inspect', 'vit_digits']\nsys.exit(run())"
    )

    assert (done.returncode, done.stdout) == (7, "")
    (line,) = done.stderr.splitlines()
    assert (
        line.startswith(f"error: {missing} is not installed") and 'pip install "exporter[compiler]"' in line
    )


def test_the_manifest_records_engine_options_and_no_path_of_this_machine(bundle: Bundle) -> None:
    recorded = bundle.manifest.artifacts["openvino"].options
    assert recorded is not None and recorded["threads"] == 1
    assert bundle.engine_options("openvino") == OpenVinoOptions(threads=1)
    assert bundle.engine_options("onnx") == OnnxOptions()
    assert b"/cache/of" not in (bundle.path / "manifest.json").read_bytes()
    assert load_recipe(bundle.path / "recipe.yaml").engines["onnx"] == OnnxOptions()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        pytest.param({"cuda": True}, "unknown option cuda", id="unknown"),
        pytest.param({"threads": "one"}, "threads: got a value of another kind", id="text"),
        pytest.param({"threads": True}, "threads: got a value of another kind", id="truth"),
        pytest.param({"precision_hint": "f8"}, "precision_hint: got a value of another kind", id="word"),
    ],
)
def test_forged_options_are_a_damaged_bundle(bundle: Bundle, options: dict[str, Any], words: str) -> None:
    artifacts = bundle.manifest.artifacts
    forged = {**artifacts, "openvino": replace(artifacts["openvino"], options=options)}

    with pytest.raises(BundleError, match=f"artifacts.openvino.options: {words}"):
        replace(bundle, manifest=replace(bundle.manifest, artifacts=forged)).runner("openvino")
