"""A small bundle that looks like the real ones."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from exporter.bundle import ArtifactRecord, Manifest, ParityRecord, seal, stage_bundle, write_sample
from exporter.signature import TensorSpec
from tests.support import report_bundle

SampleBundle = Callable[[Path], Path]


@pytest.fixture
def manifest() -> Manifest:
    parity = ParityRecord(
        max_abs_error=1e-6, mean_abs_error=1e-7, cosine=1.0, match_agreement=(1.0, 0.5), passed=True
    )
    return report_bundle.manifest(
        report_bundle.Form(patch=2, merged=(4, 4)),
        inputs=(TensorSpec(name="images", dtype="float32", shape=("batch", 3, 8, 8)),),
        outputs=(TensorSpec(name="logits", dtype="float32", shape=("batch", 10)),),
        artifacts={
            "onnx": ArtifactRecord(file="model.onnx", precision="fp32", opset=20),
            "openvino": ArtifactRecord(file="openvino/model.xml", precision="fp32"),
        },
        parity={"onnx": parity},
    )


@pytest.fixture
def write_bundle(manifest: Manifest) -> SampleBundle:
    """Writes a whole bundle at a path, and returns the path."""

    def write(out_dir: Path) -> Path:
        with stage_bundle(out_dir) as folder:
            (folder / "model.onnx").write_bytes(b"an engine")
            (folder / "openvino").mkdir()
            (folder / "openvino/model.xml").write_bytes(b"<net/>")
            (folder / "openvino/model.bin").write_bytes(bytes(3_000_000))
            (folder / "recipe.yaml").write_text("model: vit_b16\nweights: random\n", encoding="utf-8")
            write_sample(
                folder, {"images": np.ones((1, 3, 8, 8), np.float32), "logits": np.zeros((1, 10), np.float32)}
            )
            seal(folder, manifest)
        return out_dir

    return write


@pytest.fixture
def bundle_path(tmp_path: Path, write_bundle: SampleBundle) -> Path:
    return write_bundle(tmp_path / "bundle")
