"""A small bundle that looks like the real ones."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from exporter.bundle import (
    ArtifactRecord,
    GmacsRecord,
    Manifest,
    ModelRecord,
    ParityRecord,
    ScheduleRecord,
    WeightsRecord,
    seal,
    stage_bundle,
    write_sample,
)
from exporter.signature import TensorSpec

SampleBundle = Callable[[Path], Path]


@pytest.fixture
def manifest() -> Manifest:
    return Manifest(
        name="tiny-tome-r4",
        model=ModelRecord(source="timm", id="tiny", weights=WeightsRecord(kind="random", sha256="ab" * 32)),
        tower="image",
        method="tome",
        tokens_protected=1,
        schedule=ScheduleRecord(requested="constant r=4", merged=(4, 4), tokens=(17, 13, 9)),
        gmacs=GmacsRecord(dense=1.5, reduced=1.0, ratio=1.5, executed=0.9),
        input="float",
        layout="nchw",
        inputs=(TensorSpec(name="images", dtype="float32", shape=("batch", 3, 8, 8)),),
        outputs=(TensorSpec(name="logits", dtype="float32", shape=("batch", 10)),),
        preprocess={
            "image_size": [8, 8],
            "interpolation": "bicubic",
            "crop_fraction": 0.9,
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "resize_mode": "crop",
            "channel_order": "rgb",
            "layout": "NCHW",
        },
        passes=("remove_no_ops",),
        artifacts={
            "onnx": ArtifactRecord(file="model.onnx", precision="fp32", opset=20),
            "openvino": ArtifactRecord(file="openvino/model.xml", precision="fp32"),
        },
        parity={
            "onnx": ParityRecord(
                max_abs_error=1e-6, mean_abs_error=1e-7, cosine=1.0, match_agreement=(1.0, 0.5), passed=True
            )
        },
        notes=("a visible line",),
        toolchain={"torch": "2.14.1"},
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
