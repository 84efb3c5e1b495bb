"""Saved programs: the path of a `.pt2` that `torch.export.save` wrote.

The program brings its own weights and shapes. Its preprocessing may be saved beside it, as
`extra_files={"preprocess.json": ...}` with the keys that `--preprocess` takes; without either it is unknown.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from exporter.errors import ModelUnavailableError, UnsupportedGraphError, UsageError, quoted
from exporter.models.loaded import ExampleInput, LoadedModel, OutputName
from exporter.models.preprocessing.file import parse_document
from exporter.models.preprocessing.preprocess import PREPROCESS_FILE, Preprocess, channel_order
from exporter.models.pt2.archive import read_program, refusing_damage
from exporter.models.pt2.training import training_node
from exporter.models.request import ResolvedRequest, check_image_tower, check_no_options, safe_name, size_text
from exporter.models.weights import sha256_of

HOW_TO_SAVE = (
    'save it with extra_files={"preprocess.json": json.dumps({...})}, or give --preprocess FILE.json'
)
SAYS_NOTHING = (
    "the program says nothing about preprocessing, so it takes no photos; give --preprocess FILE.json"
)


def load_pt2_program(asked: ResolvedRequest) -> LoadedModel:
    """Load a saved program with one image input of static size; its batch may be symbolic.

    Outputs of rank 2 are called `logits` (one class score per column), others `features`.

    Raises:
        ModelUnavailableError: There is no such file, or it is not a saved program.
        UnsupportedGraphError: It holds more than tensors and tensor operators, its tokens are dynamic, its input is
            not one fp32 image tensor, or it was saved in training mode.
        UsageError: Other weights, another image size, an option or a text tower were asked for.
    """
    path = Path(asked.id).expanduser()
    if not path.is_file():
        raise ModelUnavailableError(f'there is no saved program "{path}": expected the path of a .pt2 file')
    _check_request(asked)
    program, extra_files = read_program(path)
    with refusing_damage(path):
        shape, output_names = _image_shape(program, path), _output_names(program, path)
        _check_mode(program, path)
    if asked.image_size is not None and shape[1:] != asked.image_size:
        raise UsageError(
            f"{path.name} was saved for {shape[1]}x{shape[2]} pixels (height, width): "
            f"--image-size {size_text(asked.image_size)} needs a new export"
        )
    for tensor in program.state_dict.values():
        tensor.requires_grad_(False)
    preprocess = asked.preprocess or _preprocess(extra_files, shape, path)
    return LoadedModel(
        module=program,
        source=asked.source,
        id=path.name,
        name=safe_name(path.stem),
        inputs={"images": ExampleInput(shape=shape, dtype=torch.float32)},
        output_names=output_names,
        preprocess=preprocess,
        weights_kind="program",
        weights_sha256=sha256_of({**program.state_dict, **_tensor_constants(program)}),
        notes=() if preprocess is not None or channel_order(shape[0]) is None else (SAYS_NOTHING,),
    )


def _check_request(asked: ResolvedRequest) -> None:
    check_image_tower(asked)
    check_no_options(asked)
    if asked.request.weights != "pretrained":
        raise UsageError(
            f"{Path(asked.id).name} brings its own weights: leave --weights out, got {asked.request.weights}"
        )


def _check_mode(program: ExportedProgram, path: Path) -> None:
    found = training_node(program)
    if found is not None:
        raise UnsupportedGraphError(
            f"{path.name} was saved in training mode: its node {quoted(found.node)} ({found.operator}) {found.does}; "
            "call model.eval(), export and save it again"
        )


def _image_shape(program: ExportedProgram, path: Path) -> tuple[int, int, int]:
    """(C, H, W) of the program's one input, all of it static."""
    names = [
        spec.arg.name for spec in program.graph_signature.input_specs if spec.kind is InputKind.USER_INPUT
    ]
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    if len(names) != 1:
        raise UnsupportedGraphError(
            f"{path.name} takes {len(names)} inputs: expected one image tensor (batch, channels, height, width)"
        )
    value = values[names[0]]
    if not isinstance(value, torch.Tensor) or value.dim() != 4 or value.dtype != torch.float32:
        got = (
            f"{tuple(value.shape)} {value.dtype}" if isinstance(value, torch.Tensor) else type(value).__name__
        )
        raise UnsupportedGraphError(
            f"{path.name}: expected one float32 input (batch, channels, height, width), got {got}"
        )
    batch, *item = value.shape
    if not all(type(size) is int for size in item):
        raise UnsupportedGraphError(
            f"{path.name} has dynamic tokens: its input is {_shape_text(value)}; export it with a "
            "static image size (only the batch axis may be dynamic)"
        )
    free = {str(symbol) for symbol in program.range_constraints} - {str(batch)}
    if free:
        raise UnsupportedGraphError(
            f"{path.name} has dynamic tokens: sizes {', '.join(sorted(free))} inside the graph are free; "
            "export it with static shapes (only the batch axis may be dynamic)"
        )
    channels, height, width = item
    return channels, height, width


def _output_names(program: ExportedProgram, path: Path) -> tuple[OutputName, ...]:
    (output,) = program.graph.find_nodes(op="output")
    values: list[Any] = [getattr(node, "meta", {}).get("val") for node in output.args[0]]
    if not values or not all(isinstance(value, torch.Tensor) for value in values):
        raise UnsupportedGraphError(
            f"{path.name} must return a tensor or a tuple of tensors, and nothing else"
        )
    return tuple("logits" if value.dim() == 2 else "features" for value in values)


def _preprocess(extra_files: Mapping[str, str], shape: tuple[int, int, int], path: Path) -> Preprocess | None:
    text = extra_files.get(PREPROCESS_FILE)
    if text is None:
        return None
    try:
        preprocess = parse_document(text)
        if preprocess.input_shape != shape:
            raise ValueError(f"it makes inputs of {preprocess.input_shape}, and the program takes {shape}")
    except ValueError as error:
        raise ModelUnavailableError(f"{path.name}: its {PREPROCESS_FILE}: {error}; {HOW_TO_SAVE}") from error
    return preprocess


def _tensor_constants(program: ExportedProgram) -> dict[str, torch.Tensor]:
    constants: dict[str, Any] = program.constants
    return {name: value for name, value in constants.items() if isinstance(value, torch.Tensor)}


def _shape_text(value: torch.Tensor) -> str:
    return "(" + ", ".join(str(size) for size in value.shape) + ")"
