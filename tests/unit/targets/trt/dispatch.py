"""Run as a script under real bindings: the package's own code, through the bindings' own dispatch.

Every call goes to the real method first, which checks the number, names and types of what it is given, and raises
TypeError where they do not fit. What it returns means nothing, since the library is a stand-in (`natives.c`), so
where the code goes on by a value, a plausible one is put in its place.

Arguments: names to take away, as `BuilderFlag.STRIP_PLAN`; the code runs once with everything there, and once without
each of them, in a process of its own. Prints, as JSON, the members that were reached, and by name what the run without
it ended with.
"""

import ctypes
import inspect
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import tensorrt_bindings as trt  # type: ignore[import-not-found]
import torch

from exporter.errors import BundleError, UnsupportedGraphError
from exporter.targets import Signature, TensorSpec
from exporter.targets.trt import device, engine
from exporter.targets.trt.build import BuildRequest, build_plan
from exporter.targets.trt.build_files import build_files
from exporter.targets.trt.device import Device
from exporter.targets.trt.files import ENGINE, ONNX
from exporter.targets.trt.library import Log
from exporter.targets.trt.options import TrtOptions
from exporter.targets.trt.progress import PhaseTree, monitor
from exporter.targets.trt.runner import TrtRunner

HERE = Device(name="pretended", capability=(9, 0), place="cpu")

LAYERS = '{"Layers": [{"Name": "_gemm_mha_v2_myl0_17", "LayerType": "kgen"}]}'

RETURNED: dict[str, Any] = {
    "INetworkDefinition.num_inputs": 1,
    "ITensor.shape": trt.Dims((-1, 3, 4, 4)),
    "ITimingCache.serialize": b"cache",
    "Builder.build_serialized_network": b"plan",
    "OnnxParser.num_errors": 1,
    "OnnxParserRefitter.num_errors": 1,
    "EngineInspector.get_engine_information": LAYERS,
    "ICudaEngine.num_io_tensors": 2,
    "ICudaEngine.get_tensor_shape": trt.Dims((-1, 3, 4, 4)),
    "ICudaEngine.get_tensor_profile_shape": [trt.Dims((batch, 3, 4, 4)) for batch in (1, 2, 4)],
    "IExecutionContext.get_tensor_shape": trt.Dims((2, 10)),
}
"""In place of what the library would return."""

CHOSEN: dict[str, Callable[..., Any]] = {
    "ICudaEngine.get_tensor_name": lambda index: ("images", "logits")[index],
    "ICudaEngine.get_tensor_mode": lambda name: (
        trt.TensorIOMode.INPUT if name == "images" else trt.TensorIOMode.OUTPUT
    ),
    "ICudaEngine.get_tensor_dtype": lambda name: trt.DataType.FLOAT,
}

NOT_CALLED = {"Refitter.get_missing_weights": ["weight"]}
"""What would make a list of the stand-in's address as a length; it takes no arguments that could be wrong."""

reached: set[str] = set()


def watch(kind: type) -> None:
    """Note down what is used of a class, and replace what it returns."""
    for name, value in list(vars(kind).items()):
        where = f"{kind.__qualname__}.{name}"
        if type(value) is property:
            setattr(kind, name, watched_property(where, value))
        elif name == "__init__" or (
            not name.startswith("_") and callable(value) and not inspect.isclass(value)
        ):
            setattr(kind, name, watched_method(where, value))


def watched_property(where: str, real: property) -> property:
    def get(self: Any) -> Any:
        reached.add(where)
        try:
            value = real.__get__(self, type(self))
        except RuntimeError:  # nothing lies where the property looks
            if where not in RETURNED:
                raise
            value = None
        return RETURNED.get(where, value)

    def put(self: Any, value: Any) -> None:
        reached.add(where)
        real.__set__(self, value)

    return property(get, put if real.fset is not None else None)


def watched_method(where: str, real: Any) -> Any:
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        reached.add(where)
        if where in NOT_CALLED:
            return NOT_CALLED[where]
        try:
            value = real(self, *args, **kwargs)
        except RuntimeError:  # the arguments were right, what came back was not
            if where not in RETURNED:
                raise
            value = None
        if isinstance(value, trt.IHostMemory):  # read as bytes, once its content means something
            assert ctypes.pythonapi.PyObject_CheckBuffer(ctypes.py_object(value))
        return CHOSEN[where](*args) if where in CHOSEN else RETURNED.get(where, value)

    return call


def is_enum(kind: type) -> bool:
    return "__members__" in vars(kind) or hasattr(kind, "__members__")


def take_away(name: str) -> None:
    owner, _, member = name.rpartition(".")
    delattr(getattr(trt, owner) if owner else trt, member)


def build(folder: Path) -> None:
    """Every option, a profile, an engine in files."""
    for options in (
        TrtOptions(),
        TrtOptions(
            min_batch=1, opt_batch=2, max_batch=4, workspace_mb=64, version_compatible=True, refit=True
        ),
        TrtOptions(
            min_batch=1, opt_batch=2, max_batch=4, strip_plan=True, hardware_compatibility="ampere_plus"
        ),
    ):
        (folder / ONNX).write_bytes(b"model")
        wanted = BuildRequest(inputs=("images",), options=options, device=HERE, cache=b"cache")
        build_files(trt, folder, wanted, attention=1)


def refuse(folder: Path) -> None:
    """A parser that complains, and a refitter that does."""
    RETURNED["OnnxParser.parse_from_file"] = False
    try:
        build_plan(trt, folder / ONNX, BuildRequest(inputs=("images",), options=TrtOptions(), device=HERE))
        raise AssertionError("the parser's refusal went by")
    except UnsupportedGraphError:
        pass
    RETURNED["Refitter.refit_cuda_engine"] = False
    runner = open_runner(folder)
    try:
        runner.load()
        raise AssertionError("the refitter's refusal went by")
    except BundleError:
        del RETURNED["Refitter.refit_cuda_engine"]


def open_runner(folder: Path, **options: Any) -> TrtRunner:
    shape = ("batch", 3, 4, 4)
    return TrtRunner(
        path=folder / ENGINE,
        signature=Signature(
            inputs=(TensorSpec(name="images", dtype="float32", shape=shape),),
            outputs=(TensorSpec(name="logits", dtype="float32", shape=("batch", 10)),),
        ),
        options=TrtOptions(**options),
    )


def run(folder: Path) -> None:
    """A stripped engine, its weights, a call."""
    outputs = open_runner(folder).forward(torch.zeros(2, 3, 4, 4))
    assert list(outputs) == ["logits"]
    open_runner(folder).enqueue(np.zeros((2, 3, 4, 4), np.float32), cuda_graph=False)()
    loaded = engine.load_engine(trt, b"plan", "model.engine", HERE, host_code=True)
    assert loaded.runtime.engine_host_code_allowed


def callbacks() -> None:
    """What TensorRT calls back overrides the bindings' methods, under the same names and parameters."""
    own = [(trt.ILogger, Log(trt).logger), (trt.IProgressMonitor, monitor(trt, PhaseTree(lambda *_: None)))]
    for base, made in own:
        assert isinstance(made, base)
        methods = {name: value for name, value in vars(type(made)).items() if not name.startswith("_")}
        for name, method in methods.items():
            documented = next(line for line in OVERRIDDEN[base.__name__, name].splitlines() if line)
            wanted = [part.partition(":")[0] for part in documented.partition("(")[2].split(", ")]
            assert list(inspect.signature(method).parameters) == wanted, (name, documented)
            reached.add(f"{base.__name__}.{name}")


OVERRIDDEN = {
    (kind.__name__, name): value.__doc__
    for kind in (trt.ILogger, trt.IProgressMonitor)
    for name, value in vars(kind).items()
    if callable(value)
}


def prepare() -> None:
    """Watch every class; pretend the GPU."""
    sys.modules["tensorrt"] = trt
    for kind in [kind for kind in vars(trt).values() if inspect.isclass(kind) and not is_enum(kind)]:
        if kind.__module__.startswith("tensorrt_bindings"):
            watch(kind)
    device.current_device = lambda: HERE
    vars(torch.cuda)["current_stream"] = lambda: SimpleNamespace(cuda_stream=77)


def everything() -> None:
    with tempfile.TemporaryDirectory() as name:
        build(Path(name))
        run(Path(name))
        refuse(Path(name))
    callbacks()


def without(name: str) -> str:
    """The error that the code ends with once a name is gone; empty if it does not notice."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        ended = ""
        try:
            take_away(name)
            everything()
        except BaseException as error:
            ended = f"{type(error).__name__}: {error}"
        finally:
            os.write(writing, ended.encode())
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        ended = pipe.read().decode()
    os.waitpid(child, 0)
    return ended


if __name__ == "__main__":
    prepare()
    ends = {name: without(name) for name in sys.argv[1:]}
    everything()
    print(json.dumps({"reached": sorted(reached), "without": ends}))
