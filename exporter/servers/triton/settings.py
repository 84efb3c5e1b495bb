"""`settings.json`: what `model.py` is told of its engine. Plain values; nothing of this machine."""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from exporter.bundle import Bundle
from exporter.servers.triton.backend import options_of
from exporter.servers.triton.config import TritonModel
from exporter.targets.onnx.providers import PROVIDERS, provider_options
from exporter.targets.openvino.engine import compile_properties


def settings_of(model: TritonModel) -> dict[str, Any]:
    """The content of the file, by the keys that `model.py` reads."""
    bundle, manifest = model.bundle, model.bundle.manifest
    batch = bundle.signature.batch
    images = {"preprocess": manifest.preprocess, "input": manifest.input, "layout": manifest.layout}
    return {
        "engine": model.target,
        "file": manifest.artifacts[model.target].file,
        "files": {name: manifest.files[name] for name in engine_files(bundle, model.target)},
        "inputs": [spec.name for spec in manifest.inputs],
        "outputs": [spec.name for spec in manifest.outputs],
        "masks": list(bundle.signature.masks),
        "batch": batch if isinstance(batch, int) else None,
        "instances": model.instances,
        "images": images if model.accept == "jpeg" else None,
        **_of_the_engine(bundle, model.target),
    }


def engine_files(bundle: Bundle, target: str) -> tuple[str, ...]:
    """The files of a target's engine, as the bundle names them: those beside it that bear its name, or its folder's."""
    main = PurePosixPath(bundle.manifest.artifacts[target].file)
    beside = f"{main}." if main.parent == PurePosixPath(".") else f"{main.parent}/"
    return tuple(
        name for name in sorted(bundle.manifest.files) if name == str(main) or name.startswith(beside)
    )


def _of_the_engine(bundle: Bundle, target: str) -> Mapping[str, Any]:
    options = options_of(bundle, target)
    if target == "onnx":
        return {"provider": PROVIDERS[options.provider], "provider_options": provider_options(options)}
    return {
        "device": options.device,
        "properties": compile_properties(options, threads=options.threads),
    }
