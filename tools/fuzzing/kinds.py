"""Inputs that a user brings, by kind: files that are fine, the commands that read them, and which files to damage."""

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from random import Random

from tools.fuzzing.mutations import mutate, mutate_text
from tools.fuzzing.oracle import CASE

Files = Mapping[str, bytes]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of input.

    Attributes:
        name: for `--only`.
        files: that are fine, given a whole bundle's.
        commands: that read them; one is taken by chance.
        damaged: endings of the names of files that are mutated; nothing damages the words instead.
        finish: makes the rest fit what was mutated, such as hashes.
    """

    name: str
    files: Callable[[Files], Files]
    commands: tuple[str, ...]
    damaged: tuple[str, ...]
    finish: Callable[[Files], Files] = lambda files: files

    def damage(self, files: Files, words: tuple[str, ...], seed: int) -> tuple[Files, tuple[str, ...]]:
        """One more mutation of a case."""
        random = Random(seed)
        targets = sorted(name for name in files if name.endswith(self.damaged)) if self.damaged else []
        if not targets:
            place = random.randrange(1, len(words))
            return files, (*words[:place], mutate_text(words[place], random), *words[place + 1 :])
        name = random.choice(targets)
        return {**files, name: mutate(name, files[name], random)}, words


def reseal(files: Files) -> Files:
    """A bundle's files with a manifest that lists them as they are, so that what is read next is reached."""
    from exporter.bundle.manifest import digest_of
    from exporter.records import canonical_json

    parts = {name.removeprefix("b/"): data for name, data in files.items()}
    try:
        tree = json.loads(parts["manifest.json"])
        hashes = {name: sha256(data).hexdigest() for name, data in parts.items() if name != "manifest.json"}
        tree["files"] = {name: hashes.get(name, digest) for name, digest in tree["files"].items()} | hashes
        for record in tree["artifacts"].values():
            record["sha256"] = hashes[record["file"]]
        tree["digest"] = digest_of(tree)
        return {**files, "b/manifest.json": canonical_json(tree)}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return files  # what was mutated is the manifest's own structure


def _bundle(whole: Files) -> Files:
    return {f"b/{name}": data for name, data in whole.items()}


def _recipe(whole: Files) -> Files:
    return {"recipe.yaml": whole["recipe.yaml"], "taken": b"a file where the bundle is to be"}


@cache
def _program() -> bytes:
    import torch

    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 4, 4), torch.nn.Flatten(), torch.nn.Linear(64, 3)
    ).eval()
    made = io.BytesIO()
    torch.export.save(torch.export.export(module, (torch.zeros(2, 3, 16, 16),)), made)
    return made.getvalue()


@cache
def _tensors() -> dict[str, bytes]:
    import safetensors.torch
    import timm
    import torch

    state = timm.create_model("test_vit", num_classes=5).state_dict()
    made = io.BytesIO()
    torch.save(state, made)
    return {"w.safetensors": safetensors.torch.save(state), "w.pth": made.getvalue()}


@cache
def pictures() -> Files:
    """A labelled folder of one image in several formats."""
    import numpy as np
    from PIL import Image

    image, made = Image.fromarray(np.arange(3072, dtype=np.uint8).reshape(32, 32, 3)), {}
    for suffix, form in (("png", "PNG"), ("jpg", "JPEG"), ("bmp", "BMP"), ("webp", "WEBP"), ("tiff", "TIFF")):
        held = io.BytesIO()
        image.save(held, form)
        made[f"data/3/a.{suffix}"] = held.getvalue()
    return made


def _pictures(whole: Files) -> Files:
    made = pictures()
    table = "image,label\n" + "".join(f"{name},3\n" for name in made)
    return {**_bundle(whole), **made, "table.csv": table.encode(), "classes.txt": b"a\nb\n"}


def _preprocess(whole: Files) -> Files:
    return {"p.json": whole["preprocess.json"]}


_TIMM = "inspect timm:test_vit --quiet"

KINDS: tuple[Kind, ...] = (
    Kind(
        name="recipe",
        files=_recipe,
        commands=(f"run {CASE}/recipe.yaml --out {CASE}/taken",),
        damaged=(".yaml",),
    ),
    Kind(
        name="bundle",
        files=_bundle,
        commands=(f"report {CASE}/b --quiet", f"pack {CASE}/b --for triton --out {CASE}/models --quiet"),
        damaged=(".json", ".npz"),
        finish=reseal,
    ),
    Kind(
        name="sealed",
        files=_bundle,
        commands=(f"report {CASE}/b --quiet", f"validate {CASE}/b --no-save --quiet"),
        damaged=(".json", ".npz", ".onnx", ".yaml"),
    ),
    Kind(name="onnx", files=_bundle, commands=(f"lint {CASE}/b/model.onnx --for ort",), damaged=(".onnx",)),
    Kind(
        name="pt2",
        files=lambda _: {"m.pt2": _program()},
        commands=(f"inspect {CASE}/m.pt2 --quiet",),
        damaged=(".pt2",),
    ),
    Kind(
        name="weights",
        files=lambda _: _tensors(),
        commands=(f"{_TIMM} --weights {CASE}/w.safetensors", f"{_TIMM} --weights {CASE}/w.pth"),
        damaged=(".safetensors", ".pth"),
    ),
    Kind(
        name="preprocess",
        files=_preprocess,
        commands=(f"{_TIMM} --weights random --preprocess {CASE}/p.json",),
        damaged=(".json",),
    ),
    Kind(
        name="images",
        files=_pictures,
        commands=(
            f"validate {CASE}/b --no-save --quiet --workers 0 --data {CASE}/data",
            f"validate {CASE}/b --no-save --quiet --workers 0 --data {CASE}/table.csv",
            f"report {CASE}/b --quiet --image {CASE}/data/3/a.png",
        ),
        damaged=(".png", ".jpg", ".bmp", ".webp", ".tiff", ".csv"),
    ),
    Kind(
        name="text",
        files=lambda _: {},
        commands=(
            "inspect nothing --r 4 --schedule constant --image-size 24 --quiet",
            "export nothing --target onnx --engine-option onnx.opset=20 --model-option a=b --method-option c=1",
            "sweep nothing --r 1,2 --method tome --max-drop 1",
            f"run {CASE}/nothing.yaml --lowering mask=folded --precision fp16",
            f"validate {CASE}/nothing --data {CASE} --classes {CASE}/none --quiet",
            f"bench {CASE}/nothing --batch 1,8 --threads 1",
            f"report {CASE}/nothing --image {CASE}/none.png",
            f"lint {CASE}/nothing.onnx --for ort",
            f"pack {CASE}/nothing --for triton --out {CASE}/models --name a --queue 4 --delay-ms 2.5 --instances 2",
            f"probe http://127.0.0.1:1 --bundle {CASE}/nothing --model a --timeout 2",
        ),
        damaged=(),
    ),
)


def read_bundle(folder: Path) -> Files:
    """The files of a bundle, by relative path."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}
