"""Saved programs: what loads, what is refused, and that nothing inside one is ever run."""

import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from exporter.errors import ModelUnavailableError, UnsupportedGraphError, UsageError
from exporter.models import ModelRequest, Preprocess, load

PREPROCESS = Preprocess(
    image_size=(32, 32),
    interpolation="bilinear",
    crop_fraction=0.5,
    mean=(0.1, 0.2, 0.3),
    std=(1.0, 1.0, 1.0),
)


class Pooling(nn.Module):
    """Convolution and mean: works at any image size."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Mean patch of (B, 3, H, W)."""
        pooled: torch.Tensor = self.patches(images).flatten(2).mean(2)
        return pooled


def save(path: Path, module: nn.Module, *inputs: torch.Tensor, **options: object) -> Path:
    """Export and save a module."""
    extra = options.pop("extra_files", None)
    with torch.no_grad():
        program = torch.export.export(module.eval(), inputs, **options)  # type: ignore[arg-type]
    torch.export.save(program, path, extra_files=extra)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize("dynamic", [None, ({0: Dim("batch")},)], ids=["static batch", "symbolic batch"])
def test_a_saved_program_computes_what_it_did(dynamic: object, tiny_vit: nn.Module, tmp_path: Path) -> None:
    images = torch.randn(2, 3, 32, 32)
    path = save(tmp_path / "my model.pt2", tiny_vit, images, dynamic_shapes=dynamic)
    loaded = load(ModelRequest(model=str(path)))
    assert isinstance(loaded.module, ExportedProgram)
    torch.testing.assert_close(loaded.module.module()(images), tiny_vit(images), rtol=0, atol=0)
    assert (loaded.source, loaded.id, loaded.name) == ("pt2", "my model.pt2", "my-model")
    assert (loaded.weights_kind, loaded.output_names) == ("program", ("logits",))
    assert (loaded.example_input.shape, loaded.preprocess) == ((3, 32, 32), None)
    assert not any(tensor.requires_grad for tensor in loaded.module.state_dict.values())


def test_preprocessing_saved_beside_the_program_is_read(tiny_vit: nn.Module, tmp_path: Path) -> None:
    extra = {"preprocess.json": json.dumps(PREPROCESS.to_dict())}
    path = save(tmp_path / "m.pt2", tiny_vit, torch.randn(1, 3, 32, 32), extra_files=extra)
    assert load(ModelRequest(model=str(path))).preprocess == PREPROCESS


@pytest.mark.parametrize(
    "dynamic",
    [
        pytest.param(({2: Dim("h", min=2) * 4, 3: Dim("w", min=2) * 4},), id="both sides"),
        pytest.param(({0: Dim("b"), 3: Dim("w", min=2) * 4},), id="batch and one side"),
    ],
)
def test_dynamic_tokens_are_refused(dynamic: object, tmp_path: Path) -> None:
    path = save(tmp_path / "m.pt2", Pooling(), torch.randn(2, 3, 32, 32), dynamic_shapes=dynamic)
    with pytest.raises(UnsupportedGraphError, match="dynamic tokens") as caught:
        load(ModelRequest(model=str(path)))
    assert caught.value.exit_status == 4


class TwoInputs(nn.Module):
    """Takes two images."""

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """Their sum."""
        return left + right


@pytest.mark.parametrize(
    ("module", "inputs", "expected"),
    [
        pytest.param(
            TwoInputs(), (torch.ones(1, 3, 8, 8), torch.ones(1, 3, 8, 8)), "takes 2 inputs", id="two inputs"
        ),
        pytest.param(nn.ReLU(), (torch.ones(2, 5),), "expected one float32 input", id="not an image"),
        pytest.param(nn.ReLU(), (torch.ones(1, 3, 8, 8).half(),), "torch.float16", id="not fp32"),
    ],
)
def test_a_program_without_one_image_input_is_refused(
    module: nn.Module, inputs: tuple[torch.Tensor, ...], expected: str, tmp_path: Path
) -> None:
    path = save(tmp_path / "m.pt2", module, *inputs)
    with pytest.raises(UnsupportedGraphError, match=expected):
        load(ModelRequest(model=str(path)))


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"weights": "random"}, id="other weights"),
        pytest.param({"image_size": 64}, id="another size"),
        pytest.param({"tower": "text"}, id="text tower"),
        pytest.param({"options": {"num_classes": 5}}, id="an option"),
    ],
)
def test_what_a_program_fixes_cannot_be_changed(options: dict[str, str], tiny_pt2: Path) -> None:
    with pytest.raises(UsageError):
        load(ModelRequest(model=str(tiny_pt2), **options))  # type: ignore[arg-type]


@pytest.mark.parametrize("kept", [0, 100, 5000], ids=lambda kept: f"{kept} bytes")
def test_a_damaged_program_is_refused(kept: int, tiny_pt2: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.pt2"
    path.write_bytes(tiny_pt2.read_bytes()[:kept])
    with pytest.raises(ModelUnavailableError, match="damaged") as caught:
        load(ModelRequest(model=str(path)))
    assert "\n" not in str(caught.value)


class RunsWhenUnpickled:
    """What an attacker would put into a file: unpickling it creates a folder."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        import os

        return os.mkdir, (str(self.marker),)


def _rewritten(text: bytes, change: Callable[[Any], object]) -> bytes:
    document = json.loads(text)
    change(document)
    return json.dumps(document).encode()


def tampered(
    source: Path, path: Path, part: str, change: Callable[[bytes], bytes], added: str | None = None
) -> Path:
    """Copy an archive with one part changed, or with one part added."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        root = old.namelist()[0].partition("/")[0]
        for info in old.infolist():
            data = old.read(info)
            new.writestr(info, change(data) if info.filename.endswith(part) else data)
        if added:
            new.writestr(f"{root}/{added}", b"code")
    return path


def _set_first_target(document: Any, value: str) -> None:
    document["graph_module"]["graph"]["nodes"][0]["target"] = value


def _set_size(document: Any, value: str) -> None:
    values = document["graph_module"]["graph"]["tensor_values"]
    next(iter(values.values()))["sizes"][0] = {"as_expr": {"expr_str": value, "hint": None}}


def _use_pickle(document: Any) -> None:
    next(iter(document["config"].values()))["use_pickle"] = True


@pytest.mark.parametrize(
    ("part", "change"),
    [
        pytest.param("model.json", lambda d: _set_first_target(d, "torch.os.mkdir"), id="operator"),
        pytest.param(
            "model.json",
            lambda d: _set_first_target(d, "torch.ops.aten.from_file.default"),
            id="file operator",
        ),
        pytest.param("model.json", lambda d: _set_first_target(d, "#evil.op"), id="extension operator"),
        pytest.param("model.json", lambda d: _set_size(d, "__import__('os').mkdir('x')"), id="size"),
        pytest.param("model_weights_config.json", _use_pickle, id="pickled weights"),
    ],
)
def test_code_inside_a_program_is_refused(
    part: str, change: Callable[[Any], object], tiny_pt2: Path, tmp_path: Path
) -> None:
    path = tampered(tiny_pt2, tmp_path / "m.pt2", part, lambda text: _rewritten(text, change))
    with pytest.raises(UnsupportedGraphError, match="without running code") as caught:
        load(ModelRequest(model=str(path)))
    assert caught.value.exit_status == 4


def test_pickled_sample_inputs_are_refused_unopened(tiny_pt2: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    payload = pickle.dumps(RunsWhenUnpickled(marker))
    path = tampered(tiny_pt2, tmp_path / "m.pt2", "sample_inputs/model.pt", lambda _: payload)
    with pytest.raises(UnsupportedGraphError, match="sample inputs"):
        load(ModelRequest(model=str(path)))
    assert not marker.exists()


@pytest.mark.parametrize(
    "added",
    [
        "data/aotinductor/model/wrapper.so",
        "data/weights/model.pt",
        "data/constants/opaque_obj_0",
        "models/other.json",
    ],
)
def test_further_parts_are_refused(added: str, tiny_pt2: Path, tmp_path: Path) -> None:
    path = tampered(tiny_pt2, tmp_path / "m.pt2", "nothing", lambda data: data, added=added)
    with pytest.raises(UnsupportedGraphError, match="the file"):
        load(ModelRequest(model=str(path)))


def test_guard_code_is_never_run(tiny_pt2: Path, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    guard = f"__import__('os').mkdir({str(marker)!r}) is None"
    path = tampered(
        tiny_pt2,
        tmp_path / "m.pt2",
        "model.json",
        lambda text: _rewritten(text, lambda document: document.update(guards_code=[guard])),
    )
    program = load(ModelRequest(model=str(path))).module
    assert isinstance(program, ExportedProgram)
    program.module()(torch.randn(2, 3, 32, 32))
    assert not marker.exists()
