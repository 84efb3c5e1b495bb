"""A saved program is vetted before anything in it is unpickled: what an engine is made of passes, nothing else does."""

import base64
import io
import json
import os
import pickle
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from exporter.errors import BundleError
from exporter.targets.torch_trt.archive import ABOUT, read_about

ENGINE_MODULE = "torch_tensorrt.dynamo.runtime._TRTEngine"
SETTINGS_MODULE = "torch_tensorrt.dynamo._settings"
ENUM = {"__enum__": True, "fqn": "antigravity:Flying", "name": "HIGH"}


class Made:
    """Pickles as a call of a function, found in a module of that name."""

    def __init__(self, function: Any, *given: Any) -> None:
        self.called = (function, given)

    def __reduce__(self) -> Any:
        return self.called


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Functions in modules named as Torch-TensorRT's, for `pickle` to write the names of."""
    made: dict[str, Any] = {}
    for module, name in (
        (ENGINE_MODULE, "_reconstruct_trt_engine"),
        (SETTINGS_MODULE, "CompilationSettings"),
    ):
        for parent in range(1, module.count(".") + 1):
            package = module.rsplit(".", parent)[0]
            monkeypatch.setitem(sys.modules, package, ModuleType(package))
        holder = ModuleType(module)
        exec(f"def {name}(*given): raise AssertionError('it was called')", vars(holder))
        monkeypatch.setitem(sys.modules, module, holder)
        made[name] = vars(holder)[name]
        made[name].__module__ = module
    return made


def saved(folder: Path, opaque: bytes | None = None, **replaced: Any) -> Path:
    """A program that really was saved, with an engine's pickle among its constants and other files replaced."""
    original, path = folder / "original.pt2", folder / "model_trt.pt2"
    torch.export.save(
        torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),)),
        original,
        extra_files={ABOUT: json.dumps({"torch": "2.14.1"})},
    )
    with zipfile.ZipFile(original) as old, zipfile.ZipFile(path, "w") as new:
        for entry in old.infolist():
            content = old.read(entry)
            tail = entry.filename.split("/", 1)[1]
            if opaque is not None and tail == "data/constants/model_constants_config.json":
                payload = {
                    "path_name": "opaque_obj_0",
                    "is_param": False,
                    "use_pickle": True,
                    "tensor_meta": None,
                }
                content = json.dumps({"config": {"engine": payload}}).encode()
            new.writestr(entry.filename, replaced.get(tail, content))
        if opaque is not None:
            new.writestr(f"{old.namelist()[0].split('/', 1)[0]}/data/constants/opaque_obj_0", opaque)
    return path


def engine(modules: dict[str, Any], settings: object, protocol: int) -> bytes:
    """As Torch-TensorRT 2.14 writes one: a list of texts, with a second pickle in one of them."""
    inner = base64.b64encode(pickle.dumps(settings, protocol=protocol)).decode()
    slots = [
        "10",
        "_run_on_acc_0",
        "0%9%0%0%H",
        base64.b64encode(b"ftrt engine").decode(),
        "x",
        "y",
        "0",
        inner,
    ]
    return pickle.dumps(Made(modules["_reconstruct_trt_engine"], slots), protocol=protocol)


def test_plain_program_is_read(tmp_path: Path) -> None:
    assert read_about(saved(tmp_path)) == {"torch": "2.14.1"}


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_engine_and_its_settings_pass(tmp_path: Path, modules: dict[str, Any], protocol: int) -> None:
    settings = {"settings": Made(modules["CompilationSettings"], {"torch_executed_ops": {"aten.sort"}})}

    assert read_about(saved(tmp_path, engine(modules, settings, protocol))) == {"torch": "2.14.1"}


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_pickle_that_would_run_something_else_is_refused_unrun(tmp_path: Path, protocol: int) -> None:
    marker = tmp_path / "ran"

    with pytest.raises(BundleError, match="made of (posix|os).system"):
        read_about(saved(tmp_path, pickle.dumps(Made(os.system, f"touch {marker}"), protocol=protocol)))

    assert not marker.exists()


def test_settings_that_would_run_something_else_are_refused_unrun(
    tmp_path: Path, modules: dict[str, Any]
) -> None:
    marker = tmp_path / "ran"

    with pytest.raises(BundleError, match="made of (posix|os).system"):
        read_about(saved(tmp_path, engine(modules, Made(os.system, f"touch {marker}"), 4)))

    assert not marker.exists()


def test_name_that_reaches_through_an_allowed_module_is_refused(tmp_path: Path) -> None:
    reaching = b"".join(
        [
            b"\x80\x04",
            b"\x8c" + bytes([len(ENGINE_MODULE)]) + ENGINE_MODULE.encode(),
            b"\x8c\x0cpickle.loads",
            b"\x93.",
        ]
    )

    with pytest.raises(BundleError, match="pickle.loads"):
        read_about(saved(tmp_path, reaching))


@pytest.mark.parametrize(
    ("replaced", "complaint"),
    [
        pytest.param(
            {
                "data/weights/model_weights_config.json": json.dumps(
                    {"config": {"w": {"path_name": "weight_0", "use_pickle": True}}}
                )
            },
            "pickled weights",
            id="weights",
        ),
        pytest.param(
            {
                "data/constants/model_constants_config.json": json.dumps(
                    {"config": {"c": {"path_name": "tensor_0", "use_pickle": True}}}
                )
            },
            "pickled constants",
            id="constants",
        ),
        pytest.param(
            {"models/model.json": json.dumps({"target": "torch.ops.mylib.run.default"})},
            "the operator torch.ops.mylib",
            id="operator",
        ),
        pytest.param(
            {"models/model.json": json.dumps({"expr_str": "__import__('os')"})}, "the size", id="size"
        ),
        pytest.param(
            {"models/model.json": json.dumps({"in_spec": json.dumps([1, {"type": "os.system"}])})},
            "of type os.system",
            id="tree",
        ),
        pytest.param(
            {"models/model.json": json.dumps({"in_spec": json.dumps([1, {"context": json.dumps(ENUM)}])})},
            "of type True",
            id="enum, whose module would be imported",
        ),
        pytest.param(
            {
                "models/model.json": json.dumps(
                    {"out_spec": json.dumps([1, {"context": json.dumps([{"type": "os.system"}])}])}
                )
            },
            "of type os.system",
            id="tree in a tree",
        ),
        pytest.param(
            {"models/model.json": json.dumps({"target": "#evil.op"})}, "the operator #evil", id="extension"
        ),
    ],
)
def test_archive_that_asks_for_python_is_refused(
    tmp_path: Path, replaced: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(BundleError, match=complaint):
        read_about(saved(tmp_path, **replaced))


@pytest.mark.parametrize("added", ["data/aotinductor/model/wrapper.so", "models/other.json"])
def test_further_parts_are_refused(tmp_path: Path, added: str) -> None:
    path = saved(tmp_path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{archive.namelist()[0].split('/', 1)[0]}/{added}", b"code")

    with pytest.raises(BundleError, match="the file"):
        read_about(path)


def test_sample_inputs_that_are_no_tensors_are_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(Made(os.system, "true"), buffer)

    path = saved(tmp_path, **{"data/sample_inputs/model.pt": buffer.getvalue()})

    with pytest.raises(BundleError, match="sample inputs that are not plain tensors"):
        read_about(path)
