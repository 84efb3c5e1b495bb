"""`config.pbtxt`: what Triton is told of a model. Its fields are those of Triton's `model_config.proto`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from exporter.bundle import Bundle
from exporter.errors import UsageError
from exporter.servers.open_inference import DATATYPES, ENGINE
from exporter.servers.triton.backend import Accept, Backend
from exporter.servers.triton.text_format import Message, Word, text_of
from exporter.signature import TensorSpec

WRITTEN_BY = "# Written by exporter pack."
"""How a file starts whose folder may be replaced."""

LABELS = "labels.txt"


@dataclass(frozen=True, kw_only=True)
class TritonModel:
    """A bundle's engine as a model of Triton.

    Attributes:
        bundle: that holds it.
        target: whose engine.
        name: of the model.
        backend: that runs it.
        accept: what requests hold: the model's inputs, or image files.
        max_batch: rows of the largest batch.
        instances: of the engine, each of which runs a batch at a time.
        on_gpu: whether they run on a GPU.
        queue: requests that wait at most; more are refused.
        delay_ms: that a batch waits for more requests.
        labels: names of the classes, in order; None where there are none.
    """

    bundle: Bundle
    target: str
    name: str
    backend: Backend
    accept: Accept
    max_batch: int
    instances: int
    on_gpu: bool
    queue: int
    delay_ms: float
    labels: tuple[str, ...] | None

    @property
    def inputs(self) -> tuple[tuple[str, str, tuple[int, ...]], ...]:
        """Name, the protocol's type and the shape of a row, of every input."""
        if self.accept == "jpeg":
            return tuple((spec.name, "BYTES", (1,)) for spec in self.bundle.manifest.inputs)
        return tuple(_row_of(spec, self.bundle) for spec in self.bundle.manifest.inputs)


def config_text(model: TritonModel) -> str:
    """The text of `config.pbtxt`."""
    outputs = [_tensor(*_row_of(spec, model.bundle)) for spec in model.bundle.manifest.outputs]
    if model.labels is not None:
        outputs[0]["label_filename"] = LABELS
    static = isinstance(model.bundle.signature.batch, int)
    message: Message = {
        "name": model.name,
        "backend": model.backend,
        "max_batch_size": model.max_batch,
        "input": [_tensor(*each) for each in model.inputs],
        "output": outputs,
        "instance_group": {
            "count": model.instances,
            "kind": Word("KIND_GPU" if model.on_gpu else "KIND_CPU"),
        },
        "dynamic_batching": {
            **({"preferred_batch_size": model.max_batch} if static else {}),
            "max_queue_delay_microseconds": round(model.delay_ms * 1000),
            "default_queue_policy": {"timeout_action": Word("REJECT"), "max_queue_size": model.queue},
        },
        "model_warmup": {
            "name": "sample",
            "batch_size": model.max_batch,
            "inputs": [
                {"key": name, "value": {**_typed(datatype, dims), "input_data_file": name}}
                for name, datatype, dims in model.inputs
            ],
        },
        "parameters": [
            {"key": key, "value": {"string_value": text}} for key, text in _said_to_clients(model).items()
        ],
    }
    return f"{WRITTEN_BY}\n{text_of(message)}"


def _said_to_clients(model: TritonModel) -> Mapping[str, str]:
    """What `/v2/models/NAME/config` says beyond Triton's own fields."""
    manifest = model.bundle.manifest
    said = {
        "bundle": manifest.name,
        "target": model.target,
        ENGINE: manifest.artifacts[model.target].sha256,
    }
    if manifest.preprocess is not None:
        said |= {
            "preprocess": json.dumps(manifest.preprocess, sort_keys=True),
            "input": manifest.input,
            "layout": manifest.layout,
        }
    return said


def _row_of(spec: TensorSpec, bundle: Bundle) -> tuple[str, str, tuple[int, ...]]:
    if spec.dtype not in DATATYPES:
        known = ", ".join(sorted(set(DATATYPES) - {"object"}))
        raise UsageError(
            f"{bundle.path}: {spec.name}: expected {known}, which servers take, got {spec.dtype}"
        )
    return spec.name, DATATYPES[spec.dtype], tuple(map(int, spec.shape[1:]))


def _tensor(name: str, datatype: str, dims: tuple[int, ...]) -> dict[str, Any]:
    return {"name": name, **_typed(datatype, dims)}


def _typed(datatype: str, dims: tuple[int, ...]) -> dict[str, Any]:
    return {
        "data_type": Word("TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"),
        "dims": list(dims),
    }
