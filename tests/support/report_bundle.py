"""Bundles with everything beside the engines that a report shows, made up, and groups of patches that look alike.

The engines are a few bytes: a report never runs them. Numbers are chosen to be told apart, not to be plausible.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from exporter.bundle import (
    ArtifactRecord,
    Bundle,
    GmacsRecord,
    Manifest,
    ModelRecord,
    ParityRecord,
    ScheduleRecord,
    WeightsRecord,
    load_bundle,
    seal,
    stage_bundle,
    write_sample,
)
from exporter.signature import TensorSpec

MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.5, 0.2)


@dataclass(frozen=True, kw_only=True)
class Form:
    """The geometry of a made-up model: square images of so many patches a side, one class token."""

    side: int = 4
    patch: int = 8
    merged: tuple[int, ...] = (4, 4, 2)

    @property
    def tokens(self) -> tuple[int, ...]:
        counts = [self.side**2 + 1]
        for merged in self.merged:
            counts.append(counts[-1] - merged)
        return tuple(counts)

    @property
    def pixels(self) -> int:
        return self.side * self.patch


def manifest(form: Form, **changes: Any) -> Manifest:
    """What a bundle of this form says about itself."""
    size = form.pixels
    values: dict[str, Any] = {
        "name": "tiny-tome-r4",
        "model": ModelRecord(
            source="timm", id="tiny", weights=WeightsRecord(kind="random", sha256="ab" * 32)
        ),
        "tower": "image",
        "method": "tome",
        "tokens_protected": 1,
        "schedule": ScheduleRecord(requested="constant r=4", merged=form.merged, tokens=form.tokens),
        "gmacs": GmacsRecord(dense=1.5, reduced=1.2, ratio=1.25, executed=0.9),
        "input": "float",
        "layout": "nchw",
        "inputs": (TensorSpec(name="images", dtype="float32", shape=(1, 3, size, size)),),
        "outputs": (TensorSpec(name="logits", dtype="float32", shape=(1, 10)),),
        "preprocess": {
            "image_size": [size, size],
            "interpolation": "bicubic",
            "crop_fraction": 0.9,
            "mean": list(MEAN),
            "std": list(STD),
            "resize_mode": "crop",
            "channel_order": "rgb",
            "layout": "NCHW",
        },
        "passes": ("remove_no_ops", "insert_token_merge"),
        "artifacts": {"onnx": ArtifactRecord(file="model.onnx", precision="fp32", opset=20)},
        "parity": {
            "onnx": ParityRecord(
                max_abs_error=1.5e-6,
                mean_abs_error=2.5e-7,
                cosine=0.999999,
                match_agreement=(1.0, 0.75),
                passed=True,
            )
        },
        "notes": ("block 2 merges 2 tokens, not 4",),
        "toolchain": {"torch": "2.14.1", "exporter": "0.1.0"},
    }
    return Manifest(**(values | changes))


def make_bundle(
    path: Path,
    *,
    form: Form | None = None,
    image_HWC: npt.NDArray[np.uint8] | None = None,
    files: Mapping[str, object] | None = None,
    merges: npt.NDArray[Any] | None = None,
    **changes: Any,
) -> Bundle:
    """A sealed bundle at a path.

    Args:
        path: of the folder.
        form: of the model.
        image_HWC: bytes of the sample's image; noise if not given.
        files: JSON files to write beside the engine, by name.
        merges: the groups of `merges.npz`.
        changes: of the manifest.
    """
    form = form or Form()
    record = manifest(form, **changes)
    image = noise_image(form.pixels) if image_HWC is None else image_HWC
    normalized = ((image / 255 - np.array(MEAN)) / np.array(STD)).astype(np.float32).transpose(2, 0, 1)
    with stage_bundle(path) as folder:
        (folder / "model.onnx").write_bytes(b"an engine")
        (folder / "recipe.yaml").write_text("model: tiny\n", encoding="utf-8")
        write_sample(folder, {"images": normalized[None], "logits": np.zeros((1, 10), np.float32)})
        for name, tree in (files or {}).items():
            (folder / name).write_text(json.dumps(tree), encoding="utf-8")
        if merges is not None:
            np.savez(folder / "merges.npz", groups_LBT=merges)
        seal(folder, record)
    return load_bundle(path)


def noise_image(pixels: int) -> npt.NDArray[np.uint8]:
    """(H, W, 3) bytes that differ everywhere."""
    return np.random.default_rng(3).integers(0, 256, (pixels, pixels, 3), dtype=np.uint8)


def alike_groups(image_HWC: npt.NDArray[np.uint8], form: Form) -> npt.NDArray[np.int32]:
    """groups_LBT of one image: in every block, the pairs of groups that are closest in mean colour merge."""
    side, patch = form.side, form.patch
    tiles = image_HWC[: side * patch, : side * patch].reshape(side, patch, side, patch, 3)
    means = tiles.mean(axis=(1, 3)).reshape(-1, 3)
    members = [{0}, *({token} for token in range(1, side**2 + 1))]
    blocks = []
    for merged in form.merged:
        for _ in range(merged):
            members = _closest_merged(members, means)
        groups = np.empty(side**2 + 1, np.int32)
        for number, group in enumerate(members):
            groups[list(group)] = number
        blocks.append(groups[None])
    return np.stack(blocks)


def _closest_merged(members: list[set[int]], means: npt.NDArray[np.float64]) -> list[set[int]]:
    centres = np.array([means[[token - 1 for token in group]].mean(axis=0) for group in members[1:]])
    distances = np.abs(centres[:, None] - centres[None]).sum(axis=-1)
    distances[np.tril_indices(len(centres))] = np.inf
    one, other = np.unravel_index(np.argmin(distances), distances.shape)
    joined = members[1 + one] | members[1 + other]
    return [group for place, group in enumerate(members) if place not in (1 + one, 1 + other)] + [joined]


VALIDATION: dict[str, Any] = {
    "data": {
        "name": "held-out scans",
        "n": 454,
        "unreadable": [{"name": "a/broken.jpg", "reason": "truncated"}],
    },
    "task": "classification",
    "accuracy": {
        "dense": {"top1": 98.24, "top5": 99.78, "n": 454},
        "onnx": {"top1": 97.8, "top5": 99.56, "n": 454},
    },
    "difference": {"onnx": {"top1": -0.44, "interval": [-1.54, 0.66], "p_value": 0.625}},
    "fidelity": {
        "onnx": {
            "n": 454,
            "top1_agreement": 98.02,
            "kl": 0.0123,
            "cosine_mean": 0.9971,
            "cosine_min": 0.8123,
            "neighbour_overlap": 91.5,
            "neighbour_n": 454,
            "not_finite": 3,
        }
    },
    "retrieval": {
        name: {
            "text_to_image": {"r1": 61.25 - shift, "r5": 85.5, "r10": 92.75},
            "image_to_text": {"r1": 71.5, "r5": 90.25, "r10": 95.75},
            "images": 400,
            "texts": 2000,
        }
        for shift, name in enumerate(("dense", "onnx"))
    },
    "blocks": [
        {"block": 0, "tokens": 13, "relative_error": 0.031},
        {"block": 1, "tokens": 9, "relative_error": 0.072},
        {"block": 2, "tokens": 7, "relative_error": 0.155},
    ],
    "labels_matched_by": "name",
    "labels": [
        {"label": "tench", "class": "tench", "index": 0},
        {"label": "n01443537", "class": "goldfish", "index": 1},
        {"label": "<b>", "class": None, "index": 2},
    ],
    "notes": ["skipped, as no images and no classes: __MACOSX"],
    "warnings": ["the labels are probably numbered otherwise"],
}


def contender(name: str, target: str | None, batch: int, median_ms: float) -> dict[str, Any]:
    """A row of `bench.json`."""
    return {
        "name": name,
        "target": target,
        "reduced": name.startswith(("r4", "eager reduced")),
        "batch": batch,
        "samples_ms": [median_ms],
        "median_ms": median_ms,
        "p90_ms": median_ms * 1.25,
        "p99_ms": median_ms * 1.5,
        "iqr_ms": median_ms / 16,
        "images_per_s": 1000 * batch / median_ms,
        "peak_memory_bytes": 512_000_000,
        "load_ms": 321.0,
        "first_ms": 43.2,
        "infer_samples_per_sec": 1000 * batch / median_ms,
        "infer_step_time": median_ms,
        "infer_batch_size": batch,
    }


BENCH: dict[str, Any] = {
    "contenders": [
        contender("eager dense", None, 1, 8.0),
        contender("eager reduced", None, 1, 10.0),
        contender("r0 onnx", "onnx", 1, 4.0),
        contender("r4 onnx", "onnx", 1, 3.2),
    ],
    "unavailable": [{"name": "torch.compile dense", "batch": 1, "reason": "no C++ compiler here"}],
    "ratios": [
        {"name": "eager reduced / eager dense", "batch": 1, "value": 0.8, "interval": [0.75, 0.86]},
        {"name": "r0 onnx / eager dense", "batch": 1, "value": 2.0, "interval": [1.9, 2.1]},
        {"name": "r4 onnx / eager dense", "batch": 1, "value": 2.5, "interval": [2.41, 2.62]},
        {"name": "r4 onnx / r0 onnx", "batch": 1, "value": 1.25, "interval": [1.2, 1.31]},
    ],
    "merge_efficiency": {"onnx": 0.97},
    "efficiencies": [
        {
            "name": "r4 onnx",
            "target": "onnx",
            "batch": 1,
            "value": 0.97,
            "interval": [0.93, 1.02],
            "macs_ratio": 1.29,
        }
    ],
    "warnings": ["other-load: r4 onnx, batch 1: other processes kept 20% of its 2 cores busy"],
    "blocks": {"onnx": [{"block": block, "ms": 0.5 + block / 8} for block in range(3)]},
    "environment": {
        "cpu": "a processor",
        "cores": {"physical": 2, "logical": 4, "used": [0, 1]},
        "threads": 2,
        "os": "Linux 6.1",
        "python": "3.11.9",
        "packages": {"torch": "2.14.1"},
        "device": "cpu",
        "governor": None,
    },
}
