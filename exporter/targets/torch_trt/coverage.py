"""What of a program became TensorRT engines, and what stayed in PyTorch.

In: the graph that Torch-TensorRT returns, a row of engines and PyTorch subgraphs. Out: the report, and the gate on it.
The library only prints such a report, or writes it as prose.
"""

import operator
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import fx

from exporter.errors import GateError

ENGINE = "_run_on_acc"
"""How Torch-TensorRT's partitioner names the parts that it converts."""


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """The report.

    Attributes:
        engines: TensorRT engines, 1 where nothing fell back.
        fallback: how often each operator runs in PyTorch.
    """

    engines: int
    fallback: Mapping[str, int]

    @property
    def fallen_back(self) -> int:
        """Operators that run in PyTorch, counted as often as they do."""
        return sum(self.fallback.values())


def read_coverage(compiled: fx.GraphModule) -> Coverage:
    """Read the report off a compiled graph; a part that was meant to be an engine and is a graph still, is none."""
    engines = sum(_is_engine(compiled, node) for node in compiled.graph.nodes)
    return Coverage(engines=engines, fallback=dict(Counter(_in_pytorch(compiled))))


def require(coverage: Coverage, most: int) -> None:
    """Raise unless little enough fell back.

    Args:
        coverage: the report.
        most: operators that may run in PyTorch.

    Raises:
        GateError: naming the operators.
    """
    if coverage.fallen_back <= most and coverage.engines:
        return
    named = ", ".join(f"{name} ({count}x)" for name, count in sorted(coverage.fallback.items())) or "none"
    if not coverage.engines:
        raise GateError(
            f"target torch-trt: expected at least one TensorRT engine, got none; all of it runs in PyTorch: {named}; "
            "use a smaller --engine-option torch-trt.min_block_size, or another target"
        )
    raise GateError(
        f"target torch-trt: {coverage.fallen_back} operators run in PyTorch instead of TensorRT, expected at most "
        f"{most}: {named}; to accept that, use --engine-option torch-trt.max_fallback={coverage.fallen_back}"
    )


def _is_engine(compiled: fx.GraphModule, node: fx.Node) -> bool:
    if node.op != "call_module" or ENGINE not in str(node.target):
        return False
    return not isinstance(compiled.get_submodule(str(node.target)), fx.GraphModule)


def _in_pytorch(compiled: fx.GraphModule) -> Iterator[str]:
    for node in compiled.graph.nodes:
        if node.op in ("call_function", "call_method") and node.target is not operator.getitem:
            yield str(node.target)
        elif node.op == "call_module" and not _is_engine(compiled, node):
            part = compiled.get_submodule(str(node.target))
            yield from _in_pytorch(part) if isinstance(part, fx.GraphModule) else [type(part).__name__]
