"""Programs and ONNX models as files without weights, and back.

A file is a ZIP archive: the program or model, in which every derived tensor is a shape; the small program that computes
those tensors from the parameters (`derive`); and a table. What is not derived from parameters, such as positions or
indices, stays in the program.
"""

import hashlib
import importlib
import json
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from exporter.errors import InternalError
from exporter.graph.move import move
from exporter.models.pt2.archive import read_program
from exporter.models.quiet import quiet
from tools.gpu.derive import Recording

if TYPE_CHECKING:
    import onnx_ir as ir

PROGRAM, WEIGHTS, TABLE, MODEL, DATA = (
    "program.pt2",
    "weights.pt2",
    "table.json",
    "model.onnx",
    "model.onnx.data",
)

_LARGE_BYTES = 1 << 10
"""Larger tensors of an ONNX model are left out of it."""

_LARGEST_KEPT_BYTES = 1 << 20
"""A constant that is larger is a weight that was not recognised; indices and class tokens, by batch, are smaller."""

_TRACES = ("stack_trace", "nn_module_stack", "source_fn_stack", "from_node", "torch_fn")

Drawn = Callable[[str], Tensor]
"""A model's parameter by name, drawn on a device."""


def write_program(path: Path, exported: ExportedProgram, recording: Recording) -> None:
    """Write a program; its own tensors are replaced by shapes, in place.

    Raises:
        InternalError: the program holds large tensors of which nothing is known.
    """
    held = _tensors(exported)
    derived = {name: value for name, value in held.items() if recording.knows(value)}
    _check_kept({name: value.nbytes for name, value in held.items() if name not in derived})
    shapes = {name: _shape_only(value) for name, value in derived.items()}
    for stored in (exported._state_dict, exported._constants):
        stored.update({name: shapes[name] for name in stored if name in shapes})
    for node in exported.graph.nodes:
        for trace in _TRACES:
            node.meta.pop(trace, None)
    exported._example_inputs = None
    sources, weights = recording.derivation(list(derived.values()))
    kernels = any(str(node.target).startswith("exporter.") for node in exported.graph.nodes)
    table = {"sources": sources, "tensors": list(derived), "kernels": kernels}
    _write(path, table, {PROGRAM: exported, WEIGHTS: weights})


def read(path: Path, drawn: Drawn, device: str) -> ExportedProgram:
    """A program on a device, with weights."""
    with tempfile.TemporaryDirectory() as folder:
        table = extract(path, Path(folder))
        if table["kernels"]:
            importlib.import_module("exporter.kernels")  # registers the operators that the program calls
        program, _ = read_program(Path(folder) / PROGRAM)
        derived = _derived(Path(folder) / WEIGHTS, table, drawn, device)
    for stored in (program._state_dict, program._constants):
        stored.update({
            name: nn.Parameter(derived[name], requires_grad=False) if isinstance(old, nn.Parameter) else derived[name]
            for name, old in stored.items() if name in derived
        })  # fmt: skip
    return move(program, device)


def write_onnx(path: Path, model: "ir.Model", exported: ExportedProgram, recording: Recording) -> None:
    """Write an ONNX model, whose large initializers must be the program's tensors, as they are or transposed.

    Raises:
        InternalError: the model holds large tensors of which nothing is known.
    """
    import onnx_ir as ir

    held = {name: value for name, value in _tensors(exported).items() if recording.knows(value)}
    known = _contents(held)
    places, kept, offset = [], {}, 0
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        assert tensor is not None
        found = known.get(_digest(tensor.numpy())) if tensor.nbytes > _LARGE_BYTES else None
        if found is None:
            kept[name] = tensor.nbytes
            continue
        places.append(found)
        value.const_value = ir.ExternalTensor(
            DATA, offset, tensor.nbytes, tensor.dtype, shape=ir.Shape(tensor.numpy().shape), name=name
        )
        offset += tensor.nbytes
    _check_kept(kept)
    wanted = list(dict.fromkeys(name for name, _ in places))
    sources, weights = recording.derivation([held[name] for name in wanted])
    table = {"sources": sources, "tensors": wanted, "initializers": places}
    _write(path, table, {MODEL: ir.to_proto(model).SerializeToString(), WEIGHTS: weights})


def extract_onnx(path: Path, folder: Path, drawn: Drawn, device: str) -> Path:
    """An ONNX model in an existing folder, its weights in the file beside it."""
    table = extract(path, folder)
    derived = _derived(folder / WEIGHTS, table, drawn, device)
    with (folder / DATA).open("wb") as file:
        for name, transposed in table["initializers"]:
            value = derived[name].mT if transposed else derived[name]
            file.write(_bytes(value.contiguous().cpu()))
    return folder / MODEL


def _write(path: Path, table: Mapping[str, Any], parts: Mapping[str, ExportedProgram | bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, part in parts.items():
            if isinstance(part, bytes):
                archive.writestr(name, part)
            else:
                with quiet():
                    torch.export.save(part, Path(folder) / name)
                archive.write(Path(folder) / name, name)
        archive.writestr(TABLE, json.dumps(table))


def extract(path: Path, folder: Path) -> dict[str, Any]:
    """The parts of a file in a folder; its table."""
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            (folder / name).write_bytes(archive.read(name))  # names of ours: none leaves the folder
    table: dict[str, Any] = json.loads((folder / TABLE).read_text(encoding="utf-8"))
    return table


def _derived(path: Path, table: Mapping[str, Any], drawn: Drawn, device: str) -> dict[str, Tensor]:
    compute = move(read_program(path)[0], device).module(check_guards=False)
    with torch.no_grad():
        values = compute(*map(drawn, table["sources"]))
    return dict(zip(table["tensors"], values, strict=True))


def _tensors(exported: ExportedProgram) -> dict[str, Tensor]:
    held = {**exported.state_dict, **exported.constants}
    return {name: value for name, value in held.items() if isinstance(value, Tensor)}


def _shape_only(value: Tensor) -> Tensor:
    empty = torch.zeros((), dtype=value.dtype).expand(value.shape)
    return nn.Parameter(empty, requires_grad=False) if isinstance(value, nn.Parameter) else empty


def _contents(held: Mapping[str, Tensor]) -> dict[str, tuple[str, bool]]:
    """By digest, the tensor that has these bytes, and whether it has to be transposed for that."""
    found = {}
    for name, value in held.items():
        found[_digest(_bytes(value.contiguous()))] = (name, False)
        if value.dim() == 2:
            found.setdefault(_digest(_bytes(value.mT.contiguous())), (name, True))
    return found


def _bytes(value: Tensor) -> Any:
    """The bytes of a contiguous tensor on the CPU, of any type."""
    return value.detach().reshape(-1).view(torch.uint8).numpy()


def _digest(values: Any) -> str:
    return hashlib.sha1(values.tobytes(), usedforsecurity=False).hexdigest()


def _check_kept(kept_bytes: Mapping[str, int]) -> None:
    for name, size in kept_bytes.items():
        if size > _LARGEST_KEPT_BYTES:
            raise InternalError(
                f"{name} of {size} bytes does not follow from the parameters in any way that was seen: a program "
                "without weights cannot be written"
            )
