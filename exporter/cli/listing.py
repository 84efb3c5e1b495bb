"""`models`, `methods` and `doctor`: what there is to choose from, and what works here."""

import json
import platform
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.table import Table

from exporter.cli.terminal import console, figures
from exporter.errors import ExportError
from exporter.packages import PACKAGES, version_of

if TYPE_CHECKING:
    from exporter.reduction import Method

_FORMS = (
    ("timm, by name", "timm:vit_base_patch16_224, timm:vit_base_patch16_224.augreg_in21k_ft_in1k"),
    ("timm, a fine-tuned file", "timm:vit_base_patch16_224 --weights finetuned.pth"),
    ("timm, a saved folder or the hub", "timm:local-dir:FOLDER, timm:hf-hub:OWNER/NAME"),
    ("torchvision", "torchvision:vit_b_16, torchvision:vit_b_16/IMAGENET1K_V1 --weights finetuned.pth"),
    ("Hugging Face, a folder or the hub", "hf:./my-checkpoint, hf:OWNER/NAME"),
    ("open_clip, by name and tag", "open_clip:ViT-B-32/openai"),
    ("open_clip, a training checkpoint", "open_clip:ViT-B-32 --weights epoch_10.pt"),
    ("open_clip, a folder or the hub", "open_clip:local-dir:FOLDER, open_clip:hf-hub:OWNER/NAME"),
    ("a saved program", "my-program.pt2 --preprocess photos.json"),
)
"""What can be brought beside the aliases, and how it is written."""


def print_models(*, as_json: bool) -> None:
    """Every alias with its source, pinned weights and geometry, and the other forms of a model."""
    from exporter.models import aliases

    if as_json:
        print(json.dumps([asdict(alias) for alias in aliases().values()], indent=2))
        return
    headings = ("alias", "model", "weights", "size", "patch", "tokens", "blocks", "what it is")
    table = figures(None, headings, ("alias", "model", "weights", "what it is"))
    for alias in aliases().values():
        numbers = map(str, (alias.image_size, alias.patch_size, alias.tokens, alias.blocks))
        table.add_row(alias.name, f"{alias.source}:{alias.id}", alias.weights, *numbers, alias.note)
    out = console()
    out.print(table)
    forms = Table(title="your own", title_justify="left")
    for heading in ("what", "example of MODEL and its options"):
        forms.add_column(heading, overflow="fold")
    for row in _FORMS:
        forms.add_row(*row)
    out.print(forms)
    out.print("docs/inputs.md lists every accepted form of models, weights, labels and images.")


def print_methods(*, as_json: bool) -> None:
    """Every method: what it does, where, what has to be trained, whose idea it is, and its options."""
    from exporter.reduction import method, method_names

    rows = [_method_row(method(name)) for name in method_names()]
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    headings = ("method", "what it does", "where", "training", "source", "licence of its code", "options")
    table = Table()
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        options = [f"{name}={_value(option['default'])}" for name, option in row["options"].items()]
        words = (row["name"], row["does"], row["place"], row["training"], row["reference"], row["licence"])
        table.add_row(*words, "\n".join(options))
    console().print(table)


def _method_row(listed: "Method") -> dict[str, Any]:
    from exporter.recipe import field_keys

    options = {
        key.name: {"default": key.default, "choices": list(key.choices), "description": key.description}
        for key in field_keys(listed.options)
    }
    return {
        "name": listed.name,
        "does": listed.does,
        "place": listed.place,
        "training": listed.training,
        "reference": listed.reference,
        "licence": listed.licence,
        "options": options,
    }


def _value(default: object) -> str:
    return str(default).lower() if isinstance(default, bool) else str(default)


def print_doctor(*, as_json: bool) -> None:
    """Versions, targets and devices."""
    report: dict[str, Any] = {
        "python": platform.python_version(),
        "packages": _packages(),
        "targets": _targets(),
        "devices": _devices(),
    }
    if as_json:
        print(json.dumps(report, indent=2))
        return
    out = console()
    for title, rows in report.items():
        if isinstance(rows, str):
            out.print(f"{title} {rows}")
            continue
        table = Table(title=title, title_justify="left", show_header=False)
        for name, status in rows.items():
            table.add_row(name, status)
        out.print(table)


def _packages() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        hint = "reinstall exporter" if package.extra is None else f'pip install "exporter[{package.extra}]"'
        found[package.name] = version_of(package) or f"not installed: {hint}"
    return found


def _targets() -> dict[str, str]:
    from exporter.targets import TARGETS, target

    found = {}
    for name in TARGETS:
        try:
            found[name] = target(name).describe()
        except ExportError as error:
            found[name] = str(error)
    return found


def _devices() -> dict[str, str]:
    import torch

    devices = {"cpu": f"{torch.get_num_threads()} threads"}
    for index in range(torch.cuda.device_count()):
        devices[f"cuda:{index}"] = torch.cuda.get_device_name(index)
    if not torch.cuda.is_available():
        devices["cuda"] = "no GPU that this torch can use"
    return devices
