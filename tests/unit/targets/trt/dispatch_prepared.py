"""Run as a script under real bindings: prepared scripts, unchanged, through the bindings' own dispatch.

As in `dispatch`, every call goes to the real method first, which raises TypeError where its arguments do not fit, and
what it returns is replaced where the script goes on by a value. Imports nothing that the script does not, so that it
starts quickly.

Arguments: folders with scripts. Prints, as JSON: the members that were reached, and by folder what its script ended
with, once with everything there, once with a parser that complains, and once without what stripped engines need.
"""

import inspect
import json
import runpy
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import tensorrt_bindings as trt  # type: ignore[import-not-found]

from tests.unit.targets.trt import pretended_cuda

RETURNED: dict[str, Any] = {
    "ITensor.shape": trt.Dims((-1, 2)),
    "Builder.build_serialized_network": b"plan",
    "OnnxParser.num_errors": 1,
    "EngineInspector.get_engine_information": '{"Layers": [{"Name": "mha"}]}',
    "ICudaEngine.get_tensor_dtype": trt.DataType.FLOAT,
    "IExecutionContext.get_tensor_shape": trt.Dims((2, 2)),
}
"""In place of what the library would return."""

reached: set[str] = set()


def watch(kind: type) -> None:
    """Note down what is used of a class, and replace what it returns."""
    for name, value in list(vars(kind).items()):
        where = f"{kind.__qualname__}.{name}"
        if type(value) is property:
            setattr(kind, name, property(watched(where, value.fget), value.fset))
        elif name == "__init__" or (
            not name.startswith("_") and callable(value) and not inspect.isclass(value)
        ):
            setattr(kind, name, watched(where, value))


def watched(where: str, real: Any) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        reached.add(where)
        try:
            value = real(*args, **kwargs)
        except RuntimeError:  # the arguments were right, what came back was not
            if where not in RETURNED:
                raise
            value = None
        return RETURNED.get(where, value)

    return call


def ending(folder: Path, out: str) -> str:
    """What a script ends with: its exit status, or an error."""
    sys.argv = ["build_trt.py", "--out", str(folder.with_name(f"{folder.name}-{out}"))]
    try:
        with redirect_stdout(sys.stderr):
            runpy.run_path(str(folder / "build_trt.py"), run_name="__main__")
    except SystemExit as ended:
        return str(ended.code)
    except AttributeError as error:
        return f"AttributeError: {error}"
    raise AssertionError("a script came back")


if __name__ == "__main__":
    sys.modules["tensorrt"] = trt
    sys.modules["cuda.bindings.runtime"] = pretended_cuda
    for kind in [kind for kind in vars(trt).values() if inspect.isclass(kind)]:
        if kind.__module__.startswith("tensorrt_bindings") and not hasattr(kind, "__members__"):
            watch(kind)
    folders = [Path(name) for name in sys.argv[1:]]
    ends = {"whole": {folder.name: ending(folder, "whole") for folder in folders}}
    RETURNED["OnnxParser.parse_from_file"] = False
    ends["refused"] = {folder.name: ending(folder, "refused") for folder in folders}
    del RETURNED["OnnxParser.parse_from_file"]
    del trt.OnnxParserRefitter
    ends["without"] = {folder.name: ending(folder, "without") for folder in folders}
    json.dump({"ends": ends, "reached": sorted(reached)}, sys.stdout)
