"""What `prepare` leaves behind for `run`: `plan.json`, beside one file per program and ONNX model."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from exporter.records import STRICT, canonical_json, read_file, write_whole
from tools.gpu.contenders import Contender
from tools.gpu.draw import Parameter

FILE = "plan.json"


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What is known of a model without loading it.

    Attributes:
        parameters: that are drawn, by name.
        input: name of its input.
        image: (C, H, W).
    """

    parameters: Mapping[str, Parameter]
    input: str
    image: tuple[int, int, int]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A contender, and what it takes to run it.

    Attributes:
        contender: which one.
        missing: why it is not available; empty if it is.
        file: the program or ONNX model; None for the library's own code.
        reference: the same model and merging in fp32, by the plain operators.
        executed_macs: multiply-accumulates of one image.
        outputs: shape without the batch, by name.
    """

    contender: Contender
    missing: str = ""
    file: str | None = None
    reference: str | None = None
    executed_macs: int = 0
    outputs: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The whole list.

    Attributes:
        torch: version that wrote the programs.
        models: by key.
        entries: the most important first.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = STRICT

    torch: str
    models: Mapping[str, ModelFacts]
    entries: tuple[Entry, ...]


def write_plan(folder: Path, plan: Plan) -> None:
    """Write it into a folder."""
    write_whole(folder / FILE, canonical_json(plan))


def read_plan(folder: Path) -> Plan:
    """Read it.

    Raises:
        BundleError: the folder has none, or one of another version.
    """
    return read_file(Plan, folder / FILE, "make it with python -m tools.gpu_check prepare")
