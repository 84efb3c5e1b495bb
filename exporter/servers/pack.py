"""`pack`: a bundle's engine as a model in the repository of an inference server."""

import re
from dataclasses import dataclass
from pathlib import Path

from exporter.bundle import Bundle, load_bundle
from exporter.errors import UsageError, quoted
from exporter.servers.triton.backend import Accept, Backend, choose_backend, options_of
from exporter.servers.triton.config import TritonModel
from exporter.servers.triton.repository import write_model
from exporter.targets import find_target

DEFAULT_MAX_BATCH = 32
"""Of a bundle whose batch is free."""

_HOST_CODE = "--backend-config=tensorrt,version-compatible=true"
"""Lets Triton load engines that bring code of their own to the host, as version-compatible ones do."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True, kw_only=True)
class PackRequest:
    """What is packed, and how it is served.

    Attributes:
        bundle: its folder.
        out: the repository, which may hold other models.
        target: whose engine; None for the only one, or `onnx`.
        name: of the model; None for the bundle's.
        accept: whether requests hold the model's inputs, or image files.
        queue: requests that wait at most; more are refused.
        delay_ms: that a batch waits for more requests.
        instances: of the engine.
        max_batch: rows of the largest batch, where the bundle's is free; None for the engine's, or 32.
        labels: file with the name of a class in every line.
    """

    bundle: str | Path
    out: str | Path
    target: str | None = None
    name: str | None = None
    accept: Accept = "tensor"
    queue: int = 32
    delay_ms: float = 20.0
    instances: int = 1
    max_batch: int | None = None
    labels: str | Path | None = None


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A model that was written.

    Attributes:
        folder: of the model in the repository.
        name: of the model.
        target: whose engine.
        backend: of Triton.
        max_batch: rows of the largest batch.
        needs: libraries that the server's Python has to have.
        server_options: that the server has to be started with, beyond the repository.
    """

    folder: Path
    name: str
    target: str
    backend: Backend
    max_batch: int
    needs: tuple[str, ...]
    server_options: tuple[str, ...]


def pack(asked: PackRequest) -> Packed:
    """Write a bundle's engine into a repository of Triton, in place of the model of that name that was packed before.

    Raises:
        UsageError: Triton cannot run the engine as it is asked for, or the repository cannot be written.
        BundleError: the bundle is damaged.
    """
    bundle = load_bundle(asked.bundle)
    if bundle.ladder() is not None:
        raise UsageError(
            f"{bundle.path}: expected one engine, got a ladder, which is not served by Triton yet; pack one of its "
            f"engines, such as {bundle.rungs()[-2].path}"
        )
    target = bundle.target_of(asked.target)
    backend = choose_backend(bundle, target, asked.accept)
    options = options_of(bundle, target)
    model = TritonModel(
        bundle=bundle,
        target=target,
        name=_name(bundle, asked.name),
        backend=backend,
        accept=asked.accept,
        max_batch=_max_batch(bundle, getattr(options, "max_batch", None), asked.max_batch),
        instances=asked.instances,
        on_gpu=find_target(target).device(options) == "cuda",
        queue=asked.queue,
        delay_ms=asked.delay_ms,
        labels=None if asked.labels is None else _labels(bundle, Path(asked.labels)),
    )
    return Packed(
        folder=write_model(model, Path(asked.out)),
        name=model.name,
        target=target,
        backend=backend,
        max_batch=model.max_batch,
        needs=_needs(model),
        server_options=(_HOST_CODE,) if getattr(options, "version_compatible", False) else (),
    )


def _name(bundle: Bundle, asked: str | None) -> str:
    name = asked or bundle.manifest.name
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"name: expected letters, digits, '_', '-' and '.', as a part of a URL, got {quoted(name)}; give --name"
        )
    return name


def _max_batch(bundle: Bundle, largest: int | None, asked: int | None) -> int:
    """Rows of the largest batch.

    Args:
        bundle: whose batch is static or free.
        largest: that an engine with a free batch was built for; None where there is no limit.
        asked: by the user.
    """
    batch = bundle.signature.batch
    if isinstance(batch, int):
        largest, fits = batch, asked in (None, batch)
    else:
        fits = asked is None or largest is None or asked <= largest
    if not fits:
        raise UsageError(f"--max-batch: expected {largest}, which the engine was built for, got {asked}")
    return asked or largest or DEFAULT_MAX_BATCH


def _labels(bundle: Bundle, file: Path) -> tuple[str, ...]:
    try:
        labels = tuple(file.read_text(encoding="utf-8").splitlines())
    except UnicodeDecodeError:
        raise UsageError(
            f"{quoted(file)}: expected a class in every line, in UTF-8, got something else"
        ) from None
    output = bundle.manifest.outputs[0]
    if output.shape[1:] != (len(labels),):
        classes = "x".join(map(str, output.shape[1:]))
        raise UsageError(
            f"{quoted(file)}: expected a class in every line, {classes} for {output.name}, got {len(labels)} lines"
        )
    return labels


def _needs(model: TritonModel) -> tuple[str, ...]:
    if model.backend != "python":
        return ()
    engine = (
        "openvino" if model.target == "openvino" else "onnxruntime-gpu" if model.on_gpu else "onnxruntime"
    )
    return ("numpy", engine, *(("pillow",) if model.accept == "jpeg" else ()))
