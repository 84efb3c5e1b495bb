"""Read a `.pt2` without running anything that is in it.

`torch.export.load` unpickles: sample inputs fall back to unrestricted pickle, weights and constants may ask
for it, symbolic sizes are evaluated as Python, guards are compiled, a compiled package is a shared library.
So the archive is vetted first, through the same reader that loads it. Only these are let through: raw
tensors, sample inputs that the restricted unpickler accepts, plain tensor operators, and simple sizes. Guards
are dropped unread.
"""

import io
import json
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.pt2_archive import PT2ArchiveReader
from torch.export.pt2_archive._package import load_pt2

from exporter.errors import ModelUnavailableError, UnsupportedGraphError, library_failures, quoted
from exporter.models.quiet import quiet

MODEL_FILE = "models/model.json"
WEIGHTS_CONFIG = "data/weights/model_weights_config.json"
CONSTANTS_CONFIG = "data/constants/model_constants_config.json"
SAMPLE_INPUTS = "data/sample_inputs/model.pt"

PLAIN_FILES = (
    r"models/model\.json|data/weights/(weight_\d+|model_weights_config\.json)"
    r"|data/constants/(tensor_\d+|model_constants_config\.json)|data/sample_inputs/model\.pt"
    r"|extra/[\w.-]+|archive_format|archive_version|byteorder|version|\.data/\w+|\.format_version|\.storage_alignment"
)
_PLAIN_OPERATORS = re.compile(
    r"torch\.ops\.(aten|prims)\.(?!from_file|save)\w+\.\w+"
    r"|torch\.ops\.exporter\.\w+\.default"  # this package's own, where they are registered
    r"|torch\.ops\.higher_order\.wrap_with_set_grad_enabled|torch\.sym_\w+"
    r"|_?operator\.(getitem|add|sub|mul|floordiv|truediv|mod|neg|eq|ne|lt|le|gt|ge|and_|or_)"
)
_PLAIN_SIZE = re.compile(
    r"(Symbol|Integer|Add|Mul|Max|Min|Mod|PythonMod|FloorDiv|CleanDiv|Eq|Ne|Equality|Unequality"
    r"|'[su]\d{1,6}'|[su]\d{1,6}|positive|integer|nonnegative|True|False|\d{1,18}|[-+*/%(),= ])*"
)
_PLAIN_TREES = (None, "builtins.tuple", "builtins.list", "builtins.dict")


@dataclass(frozen=True, kw_only=True)
class Vetting:
    """What an archive may hold beside raw tensors and plain sample inputs, and how the rest is refused.

    The payloads of weights and constants are the caller's to look into.

    Attributes:
        files: names, without the archive's own folder.
        operators: of the graph.
        objects: whether the graph may take objects of an extension, which lie among the constants.
        check_size: raises for a size that is not a plain number.
        refusal: the error that words what was found.
    """

    files: re.Pattern[str]
    operators: re.Pattern[str]
    objects: bool = False
    check_size: Callable[[object], None]
    refusal: Callable[[str], Exception]

    def check(self, archive: PT2ArchiveReader) -> None:
        """Raise `refusal` for what could run code when the archive is loaded."""
        for name in archive.get_file_names():
            if not self.files.fullmatch(name):
                raise self.refusal(f"the file {name}")
        self._check_sample_inputs(archive.read_bytes(SAMPLE_INPUTS))
        self._check_graph(json.loads(archive.read_string(MODEL_FILE)))

    def _check_sample_inputs(self, data: bytes) -> None:
        """The loader tries the restricted unpickler, then an unrestricted one: the first must do."""
        if not data:
            return
        try:
            torch.load(io.BytesIO(data), weights_only=True)
        except Exception as error:  # whatever a crafted pickle raises, it is not plain tensors
            raise self.refusal("sample inputs that are not plain tensors") from error

    def _check_graph(self, model: Any) -> None:
        for key, value in _entries(model):
            match key:
                case "target" | "as_operator":
                    if not (isinstance(value, str) and self.operators.fullmatch(value)):
                        raise self.refusal(f"the operator {value}")
                case "expr_str":
                    self.check_size(value)
                case "in_spec" | "out_spec" if isinstance(value, str):
                    self._check_tree(json.loads(value))
                case "as_custom_obj" if not self.objects:
                    raise self.refusal("a custom object")

    def _check_tree(self, spec: Any) -> None:
        for key, value in _entries(spec):
            if (key == "type" and value not in _PLAIN_TREES) or key == "__enum__":
                raise self.refusal(f"inputs or outputs of type {value}")
            if key == "context" and value is not None:
                self._check_tree(json.loads(value))


def read_program(path: Path) -> tuple[ExportedProgram, dict[str, str]]:
    """Load a saved program after vetting everything in its archive.

    Args:
        path: A file that `torch.export.save` wrote.

    Returns:
        The program, and the extra files that were saved beside it.

    Raises:
        ModelUnavailableError: The file is not a saved program, or is damaged.
        UnsupportedGraphError: It holds something that could run code when it is loaded.
    """
    with refusing_damage(path), quiet():
        _check_archive(path)
        contents = load_pt2(str(path))
        program: ExportedProgram = contents.exported_programs["model"]
        program._guards_code = []  # Python source, which `module()` would compile and run
        return program, dict(contents.extra_files)


def refusing_damage(path: Path) -> AbstractContextManager[None]:
    """Refuse, in one line, a file on which any reader raises.

    Raises:
        ModelUnavailableError: The file is not a saved program, or is damaged.
    """
    return library_failures(
        ModelUnavailableError,
        f'"{path.name}" is not a program saved by torch.export.save of PyTorch {torch.__version__}, or is damaged',
        "export and save it again",
    )


def _check_archive(path: Path) -> None:
    vetting = Vetting(
        files=re.compile(PLAIN_FILES),
        operators=_PLAIN_OPERATORS,
        check_size=lambda value: _check_size(value, path),
        refusal=lambda what: _unsafe(path, what),
    )
    with PT2ArchiveReader(str(path)) as archive:
        vetting.check(archive)
        for config in (WEIGHTS_CONFIG, CONSTANTS_CONFIG):
            _check_payloads(json.loads(archive.read_string(config)), path)


def _check_payloads(config: dict[str, Any], path: Path) -> None:
    for name, payload in config["config"].items():
        if payload["use_pickle"] or not re.fullmatch(r"(weight|tensor)_\d+", payload["path_name"]):
            raise _unsafe(path, f"pickled or custom data for {name}")
        if (device := payload["tensor_meta"]["device"]["type"]) != "cpu":
            raise UnsupportedGraphError(f"{path.name} was saved on {device}: save it again from the CPU")


def _check_size(value: object, path: Path) -> None:
    if isinstance(value, str) and _PLAIN_SIZE.fullmatch(value):
        return
    if "Symbol(" not in str(value):
        raise _unsafe(path, f"the size {value}")
    raise UnsupportedGraphError(
        f"{path.name} has dynamic tokens: it computes with the free size {quoted(value)}; export it with a static "
        "image size (only the batch axis may be dynamic)"
    )


def _entries(document: Any) -> Iterator[tuple[str, Any]]:
    stack = [document]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            yield from item.items()
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)


def _unsafe(path: Path, what: str) -> UnsupportedGraphError:
    return UnsupportedGraphError(
        f"{path.name} holds {quoted(what)}: expected only tensors and plain tensor operators, which load without "
        "running code; save it again with torch.export.save from a model of plain operators"
    )
