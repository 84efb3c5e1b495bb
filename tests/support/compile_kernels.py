"""Compile every kernel for real GPUs, and count the launches of a program, on a machine without any; prints JSON.

Runs in a process of its own: tests interpret kernels, here they are compiled. What a GPU's driver would say of it is
set by hand; nothing is launched.

    python -m tests.support.compile_kernels
"""

import json
from collections import Counter
from typing import Any

import torch
import triton
from torch.export import ExportedProgram
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from exporter.forms import Forms
from exporter.kernels.device import attention, matching, residual
from exporter.schedule import ScheduleRequest
from exporter.targets.results import first_results
from tests.support.compiled import captured_family
from tests.support.lower_for_cuda import package_calls

HALF, FLOAT, INT, LONG = "*fp16", "*fp32", "*i32", "*i64"
SMALLEST, LARGEST = 89, 90
"""Compute capability of the GPUs with the least shared memory for a program (L4, L40S, RTX 40), and of H100, H200."""

_MATCH = {"KEPT": LONG, "SOURCES": LONG, "TARGETS": LONG}
_TILES = {"WIDTH": 64, "PADDED": 64, "ROWS": 64, "TILE": 64, "column_stride": 1}
_WIDE_TILES = {"WIDTH": 128, "PADDED": 128, "ROWS": 64, "TILE": 32, "column_stride": 1}
_NORM = {"WEIGHT": HALF, "BIAS": HALF, "eps": "fp32", "factor": "fp32"}
_STRIDES = {f"{value}_channel": 1 for value in "qkv"}

# kernel, types of what is not an int32, constants
KERNELS: list[tuple[Any, dict[str, str], dict[str, Any]]] = [
    (matching.best_partner_kernel, {"METRIC": HALF, "KEYS": INT, "PARTNERS": INT}, _TILES),
    (matching.list_tome_kernel, {"KEYS": INT, "PARTNERS": INT, **_MATCH}, {"TILE": 64}),
    (matching.energy_kernel, {"METRIC": HALF, "KEYS": INT, "margin": "fp32"}, _TILES),
    (matching.rank_kernel, {"KEYS": INT, "RANKS": INT}, {"TILE": 64}),
    (matching.deal_kernel, {"METRIC": HALF, "KEYS": INT, **_MATCH}, _TILES | {"RANKED": False}),
    (matching.deal_kernel, {"METRIC": HALF, "KEYS": INT, **_MATCH}, _WIDE_TILES | {"RANKED": True}),
    (
        residual.add_norm_kernel,
        {"X": HALF, "Y": HALF, "SUM": HALF, "NORMED": "*fp8e4nv", **_NORM},
        {"C": 768, "PADDED": 1024},
    ),
    (
        residual.merge_kernel,
        {"X": HALF, "Y": HALF, "SIZES": FLOAT, "MERGED": HALF, "MERGED_SIZES": FLOAT, "NORMED": HALF}
        | _NORM | _MATCH,
        {"C": 1280, "PADDED": 2048, "R_PADDED": 16, "HAS_Y": True, "HAS_SIZES": True, "NORM": True},
    ),
    *(
        (
            attention.attention_kernel,
            {"Q": kind, "K": kind, "V": kind, "OUT": kind, "SIZES": FLOAT, "scale": "fp32", "factor": "fp32"},
            _STRIDES
            | {"D": width, "PADDED": padded, "ROWS": 64, "COLUMNS": columns}
            | {"LOG2_E": 1.4426950408889634, "LOG_ABSENT": -2048.0, "PRECISION": precision},
        )
        for kind, width, padded, columns, precision in (
            (HALF, 64, 64, 64, "tf32"),
            (HALF, 80, 128, 32, "tf32"),
            (FLOAT, 64, 64, 32, "ieee"),
        )
    ),
]  # fmt: skip


class _Driver:
    """What Triton asks of a driver while PyTorch finds out which arguments a kernel writes to."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)


def shared_memory() -> dict[str, int]:
    """Bytes that a program of each kernel takes, by kernel and compute capability; the largest of its variants."""
    found: dict[str, int] = {}
    for kernel, types, constants in KERNELS:
        names = kernel.arg_names
        signature = {name: "constexpr" if name in constants else types.get(name, "i32") for name in names}
        constexprs = {(names.index(name),): value for name, value in constants.items()}
        source = ASTSource(fn=kernel, signature=signature, constexprs=constexprs)
        products = constants.get("PRECISION") == "tf32" and constants["D"] == 64
        for capability in (SMALLEST, LARGEST) if products else (SMALLEST,):
            compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32))
            name = f"{kernel.__name__}/{capability}"
            found[name] = max(found.get(name, 0), compiled.metadata.shared)
    return found


MERGED = (4, 4, 4, 0)


def served(method: Any, merged: tuple[int, ...]) -> ExportedProgram:
    """A program in the form for CUDA, without its matches."""
    forms = Forms(merge="kernels", metric="columns", stem="product", normalization="narrow")
    program = captured_family("timm_vit").compile(
        ScheduleRequest(r_per_layer=merged), method, forms=forms, precision="fp16"
    )
    return first_results(program.exported, program.outputs)


def launches(method: Any, merged: tuple[int, ...]) -> dict[str, dict[str, int]]:
    """By block: kernels of this package, and operators of PyTorch that launch at least one."""
    graph = served(method, merged).run_decompositions({}, decompose_custom_triton_ops=True).graph
    found: dict[str, Counter[str]] = {}
    for node in graph.nodes:
        if node.op == "call_function":
            kind = _kind(node)
            found.setdefault(node.meta.get("custom", {}).get("block", ""), Counter())[kind] += (
                kind not in _NO_LAUNCH
            )
    return {block: dict(+counted) for block, counted in found.items()}


_NO_LAUNCH = {
    "view", "slice", "permute", "transpose", "unbind", "unsqueeze", "expand", "select",
    "new_empty", "empty_like", "getitem", "_assert_tensor_metadata",
}  # fmt: skip


def _kind(node: torch.fx.Node) -> str:
    name = getattr(getattr(node.target, "overloadpacket", node.target), "__name__", str(node.target))
    return "kernel" if name.startswith("triton_kernel_wrapper") else name


if __name__ == "__main__":
    triton.runtime.driver.set_active(_Driver())
    print(
        json.dumps(
            {
                "shared": shared_memory(),
                "launches": {
                    "dense": launches("tome", (0, 0, 0, 0)),
                    "tome": launches("tome", MERGED),
                },
                "package": package_calls(served("tome", MERGED)),  # the last: it pretends a GPU for good
            }
        )
    )
