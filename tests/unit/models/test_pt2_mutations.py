"""Damaged and odd `.pt2` files, by the hundred: each loads, or is refused in one line; nothing else is ever raised."""

import io
import json
import random
import zipfile
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from exporter.errors import ExportError
from exporter.models import ModelRequest, load

MUTATIONS = 100
VALUES: tuple[Any, ...] = (None, True, -1, 0, 2**70, 1.5, "", "x", [], {}, [[]], "torch.ops.aten.add.Tensor")

Parts = dict[str, bytes]
Place = tuple[Any, ...]


class Net(nn.Module):
    """Small, and with what a saved program may hold: parameters, a buffer, several operators."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 4, 4, 4)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, 8, 8) to (B, 4)."""
        mean: torch.Tensor = self.norm(self.patches(images)).flatten(2).softmax(2).mean(2)
        return mean


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("pt2") / "m.pt2"
    said = {"image_size": 8, "mean": [0.5] * 3, "std": [0.5] * 3}
    torch.manual_seed(0)
    program = torch.export.export(Net().eval(), (torch.randn(2, 3, 8, 8),))
    torch.export.save(program, path, extra_files={"preprocess.json": json.dumps(said)})
    return path.read_bytes()


def flip(data: bytes, chance: random.Random) -> bytes:
    """Other bytes here and there."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 4, 32))):
        changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


def cut(data: bytes, chance: random.Random) -> bytes:
    """The start only."""
    return data[: chance.randrange(len(data))]


def drop(data: bytes, chance: random.Random) -> bytes:
    """One member cut short, or left out."""
    parts = unpacked(data)
    name = chance.choice(sorted(parts))
    parts[name] = parts[name][: chance.randrange(len(parts[name]) + 1)]
    if chance.random() < 0.5:
        del parts[name]
    return packed(parts)


def edit(data: bytes, chance: random.Random) -> bytes:
    """One of the JSON documents, with values replaced, removed or repeated."""
    parts = unpacked(data)
    documents = sorted(name for name in parts if name.endswith(".json"))
    model = next(name for name in documents if name.endswith("models/model.json"))
    name = chance.choice([model, model, *documents])
    document = json.loads(parts[name])
    for _ in range(chance.choice((1, 1, 3))):
        edit_once(document, chance)
    return packed(parts | {name: json.dumps(document).encode()})


def edit_once(document: Any, chance: random.Random) -> None:
    """Change one place of a document."""
    *way, last = chance.choice([place for place in places(document) if place])
    holder, other = at(document, way), deepcopy(at(document, chance.choice(list(places(document)))))
    match chance.choice(("odd", "other", "count", "remove", "repeat")):
        case "remove":
            del holder[last]
        case "repeat" if isinstance(holder, list):
            holder.append(deepcopy(holder[last]))
        case "count" if type(holder[last]) is int:
            holder[last] += chance.choice((-1, 1, 7))
        case "other":
            holder[last] = other
        case _:
            holder[last] = chance.choice(VALUES)


def places(document: Any, place: Place = ()) -> Iterator[Place]:
    """The way to every value of a document."""
    yield place
    if isinstance(document, dict | list):
        for key, value in document.items() if isinstance(document, dict) else enumerate(document):
            yield from places(value, (*place, key))


def at(document: Any, place: Any) -> Any:
    """The value at a place."""
    for key in place:
        document = document[key]
    return document


def unpacked(data: bytes) -> Parts:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def packed(parts: Parts) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def outcome(path: Path) -> ExportError | None:
    """How loading ends; anything but an ExportError passes through."""
    try:
        load(ModelRequest(model=str(path)))
    except ExportError as error:
        return error
    return None


@pytest.mark.parametrize(
    ("mutate", "share"),
    [
        pytest.param(edit, 4, id="edit"),
        *(pytest.param(each, 1, id=each.__name__) for each in (flip, cut, drop)),
    ],
)
def test_a_changed_program_loads_or_is_refused(
    mutate: Callable[[bytes, random.Random], bytes], share: int, original: bytes, tmp_path: Path
) -> None:
    chance, path = random.Random(2026), tmp_path / "m.pt2"
    ends: list[ExportError | None] = []
    for _ in range(MUTATIONS * share // 7):
        path.write_bytes(mutate(original, chance))
        ends.append(outcome(path))
    refusals = [error for error in ends if error is not None]
    assert len(refusals) > len(ends) / 4  # what was changed matters
    assert {error.exit_status for error in refusals} <= {3, 4}
    assert max(len(str(error)) for error in refusals) < 600
    assert not any("\n" in str(error) for error in refusals)


def test_the_program_itself_loads(original: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.pt2"
    for data in (original, packed(unpacked(original))):
        path.write_bytes(data)
        assert outcome(path) is None


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda model: model["graph_module"]["graph"]["nodes"].clear(), id="no nodes"),
        pytest.param(lambda model: model["graph_module"]["graph"].update(outputs=[]), id="no outputs"),
        pytest.param(lambda model: model["graph_module"]["signature"].update(input_specs=[]), id="no inputs"),
        pytest.param(lambda model: model["graph_module"]["graph"].update(tensor_values={}), id="no values"),
        pytest.param(lambda model: model.update(schema_version={"major": 99, "minor": 0}), id="version"),
        pytest.param(lambda model: model["graph_module"]["graph"]["nodes"][0].update(inputs=[]), id="no operands"),
        pytest.param(
            lambda model: model["graph_module"]["graph"]["nodes"].reverse(), id="values before they are computed"
        ),
    ],
)  # fmt: skip
def test_a_graph_that_is_none_is_refused(
    change: Callable[[Any], None], original: bytes, tmp_path: Path
) -> None:
    parts = unpacked(original)
    name = next(name for name in parts if name.endswith("models/model.json"))
    document = json.loads(parts[name])
    change(document)
    (tmp_path / "m.pt2").write_bytes(packed(parts | {name: json.dumps(document).encode()}))
    refusal = outcome(tmp_path / "m.pt2")
    assert refusal is not None
    assert refusal.exit_status in (3, 4)
