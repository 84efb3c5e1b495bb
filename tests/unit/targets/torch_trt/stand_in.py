"""A library that stands where Torch-TensorRT is: its real signatures, and PyTorch where it would run TensorRT.

Names and types of everything that it is called with are held to what the wheels say (`signatures.json`, made by
`tools.torch_trt_signatures`). `compile` returns what the library returns, a row of parts named as its partitioner names
them, but the part that would be an engine calls the program that it was made from.
"""

import inspect
import json
import operator
import re
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import fx, nn
from torch.export import ExportedProgram

CONTRACT: dict[str, Any] = json.loads(Path(__file__).with_name("signatures.json").read_text(encoding="utf-8"))
VERSIONS = tuple(CONTRACT)

_PLAIN: dict[str, tuple[type, ...]] = {
    "bool": (bool,),
    "int": (int,),
    "str": (str,),
    "Optional[int]": (int, type(None)),
}


def real_signature(version: str, function: str) -> inspect.Signature:
    """The signature in a version's source, less the **kwargs that would swallow a wrong name."""
    said = CONTRACT[version]["functions"][function]
    kinds = {"positional": inspect.Parameter.POSITIONAL_OR_KEYWORD, "keyword": inspect.Parameter.KEYWORD_ONLY}
    return inspect.Signature(
        [
            inspect.Parameter(name, kind, default=None, annotation=annotation)
            for group, kind in kinds.items()
            for name, annotation in said[group]
        ]
    )


def held_to(version: str, function: str, called: Callable[..., Any]) -> Callable[..., Any]:
    """A function that takes what the real one takes, and nothing else."""
    signature = real_signature(version, function)

    def checked(*args: Any, **kwargs: Any) -> Any:
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            wanted = _PLAIN.get(re.sub(r"\s", "", signature.parameters[name].annotation))
            if wanted is not None and type(value) not in wanted:
                raise TypeError(f"{function}: {name} is to be {wanted}, got {value!r}")
        return called(*args, **kwargs)

    checked.__signature__ = signature  # type: ignore[attr-defined]
    return checked


class Engine(nn.Module):
    """Where an engine would be."""

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self.program = program

    def forward(self, images: torch.Tensor) -> Any:
        return self.program(images)


@dataclass(kw_only=True)
class StandIn:
    """What was called, and how the next call is to go.

    Attributes:
        version: whose signatures hold.
        left_over: whether the partitioner leaves an operator to PyTorch.
        failure: what `compile` raises.
        settings: what `compile` was given, by call.
        cuda_graphs: how often the runner asked for them.
    """

    version: str
    left_over: bool = False
    failure: Exception | None = None
    settings: list[dict[str, Any]] = field(default_factory=list)
    cuda_graphs: int = 0

    def modules(self) -> dict[str, ModuleType]:
        """By name, as `import` would find them."""
        library, dynamo, runtime = (
            ModuleType(name) for name in ("torch_tensorrt", "torch_tensorrt.dynamo", "torch_tensorrt.runtime")
        )
        library.__spec__ = ModuleSpec("torch_tensorrt", None)
        parts: dict[str, Any] = {
            "__version__": self.version,
            "dynamo": dynamo,
            "runtime": runtime,
            "save": held_to(self.version, "save", self._save),
            "load": held_to(self.version, "load", self._load),
        }
        vars(library).update(parts)
        vars(dynamo)["compile"] = held_to(self.version, "dynamo.compile", self._compile)
        vars(runtime)["enable_cudagraphs"] = held_to(self.version, "runtime.enable_cudagraphs", self._graphs)
        return {module.__name__: module for module in (library, dynamo, runtime)}

    def _compile(self, program: ExportedProgram, *, arg_inputs: list[torch.Tensor], **settings: Any) -> Any:
        assert isinstance(program, ExportedProgram)
        self.settings.append(settings)
        if self.failure is not None:
            raise self.failure
        cache = Path(settings["timing_cache_path"])
        cache.write_bytes(b"timings")
        count = len(program.graph_signature.user_outputs)
        return partitioned(Engine(program.module(check_guards=False)), count, left_over=self.left_over)

    def _save(self, module: Any, file_path: str, **given: Any) -> None:
        assert isinstance(module, ExportedProgram) and given.pop("output_format") == "exported_program"
        torch.export.save(module, file_path, **given)

    def _load(self, file_path: str) -> Any:
        return torch.export.load(file_path)

    def _graphs(self, compiled_module: nn.Module) -> Any:
        @contextmanager
        def recorded() -> Any:
            self.cuda_graphs += 1
            yield compiled_module

        return recorded()


def partitioned(engine: nn.Module, count: int, *, left_over: bool = False) -> fx.GraphModule:
    """A graph as the partitioner leaves it: an engine, and an operator that it could not take, if any."""
    graph = fx.Graph()
    images = graph.placeholder("x")
    parts: dict[str, nn.Module] = {"_run_on_acc_0": engine}
    results = graph.call_module("_run_on_acc_0", (images,))
    values = [graph.call_function(operator.getitem, (results, place)) for place in range(count)]
    if left_over:
        parts["_run_on_gpu_1"] = _subgraph()
        values[0] = graph.call_module("_run_on_gpu_1", (values[0],))
    graph.output(tuple(values))
    return fx.GraphModule(parts, graph)


def _subgraph() -> fx.GraphModule:
    graph = fx.Graph()
    value = graph.placeholder("y")
    once = graph.call_function(torch.ops.aten.neg.default, (value,))
    graph.output(graph.call_function(torch.ops.aten.neg.default, (once,)))
    return fx.GraphModule({}, graph)
