"""Lower a program with AOTInductor for a GPU that is not there, as far as the code that a package is built of.

In a process of its own: what PyTorch asks a GPU for is answered by hand, for good. Parameters are without numbers, the
kernels are not launched, and the code is not compiled.
"""

import re
from collections import Counter
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch._inductor.graph as inductor_graph
from torch._guards import detect_fake_mode
from torch._inductor.fx_passes import fuse_attention
from torch.export import ExportedProgram

from exporter.graph.move import move

monkeypatch = pytest.MonkeyPatch().setattr

H100 = SimpleNamespace(
    name="NVIDIA H100",
    major=9,
    minor=0,
    multi_processor_count=132,
    total_memory=80 << 30,
    warp_size=32,
    regs_per_multiprocessor=65536,
    max_threads_per_multi_processor=2048,
    max_threads_per_block=1024,
    shared_memory_per_block_optin=232448,
    L2_cache_size=50 << 20,
)

SETTINGS = {
    "freezing": False,
    "compile_threads": 1,
    "joint_graph_constant_folding": False,  # computes on the GPU
    "shape_padding": False,  # measures there
    "triton.autotune_at_compile_time": False,
    "aot_inductor.package_constants_in_so": False,
}


class _Device(nullcontext[None]):
    """As `torch.cuda.device`."""

    def __init__(self, *_: object) -> None:
        super().__init__()


class _Lowered(BaseException):
    """Ends the compilation once the code is there."""


def package_calls(exported: ExportedProgram) -> dict[str, int]:
    """What the code of a package calls in one run, and how often: kernels by name, operators of PyTorch as `aten`.

    Args:
        exported: on the CPU.
    """
    mode = detect_fake_mode([node.meta.get("val") for node in exported.graph.nodes])
    assert mode is not None
    mode.allow_non_fake_inputs = True
    with mode:
        moved = move(exported, "cuda:0")
    _pretend_gpu()
    written: list[str] = []

    def stop(graph: Any, *_: object) -> None:
        written.append(graph.wrapper_code._aot_output)
        raise _Lowered

    monkeypatch(inductor_graph.GraphLowering, "_run_jit_variant_for_autotune", stop)
    try:
        with torch.no_grad():
            torch._inductor.aoti_compile_and_package(moved, inductor_configs=SETTINGS)
    except _Lowered:
        pass
    (code,) = written
    body = code[code.index("::run_impl(") :]
    kernels = re.findall(r"^\s*call_([a-z_]+?)_?\d*\(", body, re.MULTILINE)
    return dict(Counter(kernels) + Counter(aten=len(re.findall(r"aoti_torch_cuda_\w+\(", body)))
                + Counter(python=body.count("aoti_torch_proxy_executor_call_function(")))  # fmt: skip


def _pretend_gpu() -> None:
    answers: dict[str, Any] = {
        "is_available": True,
        "is_initialized": True,
        "current_device": 0,
        "device_count": 1,
        "get_device_properties": H100,
        "_get_device_properties": H100,
        "get_device_capability": (9, 0),
        "get_rng_state": torch.zeros(16, dtype=torch.uint8),
        "set_rng_state": None,
        "synchronize": None,
        "_lazy_init": None,
        "_exchange_device": 0,
        "_maybe_exchange_device": 0,
    }
    for name, answer in answers.items():
        setattr(torch.cuda, name, lambda *_, answer=answer, **__: answer)
    monkeypatch(torch.cuda, "device", _Device)
    monkeypatch(fuse_attention, "_sfdp_init", lambda *_: None)  # traces its patterns on the GPU
    monkeypatch(inductor_graph, "is_same_tensor", lambda one, other: one is other)
