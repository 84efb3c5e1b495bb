"""Measures reduction methods on labelled photos in eager PyTorch: accuracy against the dense model, and fidelity.

    python -m tools.measure_methods timm:vit_small_patch14_dinov2 --weights vits.safetensors --image-size 224 \
        --photos eval --out measured.json --r 8,16 tome pitome pitome:bipartite=first-half

In: a folder that holds a folder of photos for each class, in the model's order of classes by name. Out: a JSON file
with, for every method and r, the class that each photo was given, so that anything else can be computed from it. What
runs is the program that engines are made of, in fp32: the differences are the method's own. A row that the file has is
not run again. A sweep measures engines; this is for many variants of a method on a machine that compiles slowly.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from exporter.anatomy import examine
from exporter.capture import Program, capture
from exporter.errors import UsageError
from exporter.images import open_image
from exporter.models import ModelRequest, crop_image, load, normalize
from exporter.recipe import yaml_value
from exporter.reduction import method
from exporter.rewrite import RewriteOptions, RewrittenProgram, rewrite
from exporter.schedule import ScheduleRequest, plan
from exporter.targets import Array
from exporter.validation import fidelity, hits, report_accuracy
from tools.command_line import exit_status, measurement_parser
from tools.train_vit_digits import write_atomically

BATCH = 8


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A method with its options, at one r in every block."""

    method: str
    options: dict[str, Any]
    r: int
    proportional: bool

    def program(self, captured: Program) -> RewrittenProgram:
        """Rewritten for it."""
        chosen = method(self.method)
        geometry = examine(captured.graph_module, chosen.place).geometry
        schedule = plan(ScheduleRequest(r=self.r), chosen.limited(geometry, self.options))
        asked = RewriteOptions(
            method=chosen, method_options=self.options, proportional=self.proportional, batch=BATCH
        )
        return rewrite(captured, schedule, asked)


def measure(asked: argparse.Namespace) -> None:
    """Run what the file does not have yet, row by row."""
    model = load(ModelRequest(model=asked.model, weights=asked.weights, image_size=asked.image_size))
    if model.preprocess is None or not isinstance(model.module, nn.Module):
        raise UsageError(f"{asked.model}: expected a model of images, and no saved program")
    labels, images = [], []
    for label, folder in enumerate(sorted(each for each in asked.photos.iterdir() if each.is_dir())):
        for photo in sorted(folder.iterdir()):
            labels.append(label)
            images.append(normalize(crop_image(open_image(photo), model.preprocess), model.preprocess))
    labels_N, images_NCHW = (
        np.array(labels)[:: asked.every],
        torch.from_numpy(np.stack(images[:: asked.every])),
    )
    captured = capture(model.module.eval(), images_NCHW[:BATCH])
    dense_NC = answers(lambda batch: captured.graph_module(batch), images_NCHW)
    rows = json.loads(asked.out.read_text())["rows"] if asked.out.exists() else []
    for variant in variants(asked):
        if any(vars(variant).items() <= row.items() for row in rows):
            continue
        measured = judged(dense_NC, answers(variant.program(captured), images_NCHW), labels_N)
        rows.append(vars(variant) | measured)
        write_atomically(asked.out, json.dumps(heading(asked, labels_N, dense_NC) | {"rows": rows}).encode())
        print(json.dumps({key: value for key, value in rows[-1].items() if key != "classes"}), flush=True)


@torch.no_grad()
def answers(run: Callable[[Tensor], Any], images_NCHW: Tensor) -> Array:
    """Logits of all images; the last batch is filled with its own first image."""
    parts = []
    for batch in images_NCHW.split(BATCH):
        filled = torch.cat((batch, batch[:1].expand(BATCH - len(batch), -1, -1, -1)))
        parts.append(run(filled)[0][: len(batch)])
    logits_NC: Array = torch.cat(parts).numpy()
    return logits_NC


def judged(dense_NC: Array, reduced_NC: Array, labels_N: Array) -> dict[str, Any]:
    """Top-1 in percent, its paired difference in points with the 95 % interval, fidelity, and every answer."""
    report = report_accuracy({"dense": hits(dense_NC, labels_N), "reduced": hits(reduced_NC, labels_N)})
    difference, kept = report.difference["reduced"], fidelity([(dense_NC, reduced_NC)], logits=True)
    return {
        "top1": round(report.accuracy["reduced"].top1, 2),
        "difference": [round(points, 2) for points in (difference.top1, *difference.interval)],
        "agreement": kept.top1_agreement,
        "kl": kept.kl,
        "cosine": kept.cosine_mean,
        "classes": reduced_NC.argmax(axis=1).tolist(),
    }


def heading(asked: argparse.Namespace, labels_N: Array, dense_NC: Array) -> dict[str, Any]:
    """What was run, and what all rows share."""
    return {
        "what": "reduction methods against the dense model, rewritten programs in eager PyTorch, fp32, CPU",
        "command": "python -m tools.measure_methods",
        "model": asked.model,
        "weights": Path(asked.weights).name,
        "photos": len(labels_N),
        "pytorch": torch.__version__,
        "date": datetime.now(UTC).date().isoformat(),
        "dense_top1": round(100 * float(hits(dense_NC, labels_N).first.mean()), 2),
        "labels": labels_N.tolist(),
        "dense_classes": dense_NC.argmax(axis=1).tolist(),
    }


def variant_of(words: str, r: int) -> Variant:
    """Read `pitome:bipartite=first-half,proportional=false`."""
    name, _, rest = words.partition(":")
    pairs = [pair.partition("=") for pair in rest.split(",") if pair]
    options = {key: yaml_value(text, key) for key, _, text in pairs}
    proportional = options.pop("proportional", method(name).proportional)
    method(name).chosen(options)
    return Variant(method=name, options=options, r=r, proportional=bool(proportional))


def variants(asked: argparse.Namespace) -> list[Variant]:
    """Every method at every r."""
    return [variant_of(words, int(r)) for words in asked.methods for r in asked.r.split(",")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    parser = measurement_parser(__doc__, "model")
    parser.add_argument("--weights", default="pretrained")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--photos", type=Path, required=True)
    asked = parser.parse_args(arguments)
    return exit_status(lambda: measure(asked))


if __name__ == "__main__":
    sys.exit(main())
