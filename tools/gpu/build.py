"""Bring a contender to life: something to call without arguments that enqueues one batch; in the worker."""

import copy
import gc
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from exporter.benchmark.clock import graphed
from exporter.benchmark.loading import arrays_of
from exporter.reduction.merge import matched_pairs, read_match
from exporter.rewrite import RewrittenProgram
from exporter.targets import Array, EmitRequest, TensorSpec, target
from exporter.validation import TOLERANCES, compare
from exporter.validation.follow import follow_matches
from tools.gpu.forms import DTYPES, MadeForms, without_matches
from tools.gpu.jobs import Contender
from tools.gpu.timing import Call, Device, settle

GRAPH = " graph"
"""What the name of a contender that is replayed from a CUDA graph ends in."""

_ENGINE_OPTIONS: Mapping[str, Mapping[str, Any]] = {"onnx": {"provider": "cuda"}, "aoti": {"device": "cuda"}}
"""What it takes for an engine to run on a GPU; the others run nowhere else."""


@dataclass(kw_only=True)
class Built:
    """A contender that runs, or as much of it as does.

    Attributes:
        calls: by name: the contender's own, and with ` graph`.
        failed: why one of those does not run.
        executed_macs: of one image.
        facts: by name.
    """

    calls: dict[str, Call] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    executed_macs: int = 0
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _Calls:
    """How to call a contender, and how to replay it."""

    plain: Call
    replayed: Callable[[], Call]
    facts: Mapping[str, Any] = field(default_factory=dict)


def build(
    contender: Contender, model: str, images: Array, forms: MadeForms, device: Device, *, replay: bool = True
) -> Built:
    """Build, warm up and check one contender.

    Args:
        contender: what to build.
        model: a key of `MODELS`.
        images: one batch.
        forms: where programs come from.
        device: `cuda`, or `cpu` for a dry run.
        replay: whether to record a CUDA graph as well.

    Raises:
        Exception: whatever loading, compiling or the engine raises.
    """
    program = _program(contender, model, len(images), forms)  # first: it says whether the engine is here
    expected = forms.reference(model, contender.merging, images).expected(len(images))
    memory = _Memory(device, by_allocator=contender.kind in _TORCH)
    started = time.perf_counter()
    calls = _TORCH.get(contender.kind, _engine)(contender, program, model, images, forms, device)
    settled = settle(calls.plain, device)
    facts = {
        **settled,
        **calls.facts,
        "build_s": round(time.perf_counter() - started, 2),
        "parity": parity(calls.plain(), expected, contender.precision),
        **memory.peak(calls.plain),
    }
    if contender.kind == "program" and program.merging_blocks:
        facts["matches"] = _matches(program, contender, model, images, forms)
    built = Built(executed_macs=program.executed_macs)
    built.calls[contender.name], built.facts[contender.name] = calls.plain, facts
    if device == "cuda" and replay:
        name = contender.name + GRAPH
        try:
            recorded = calls.replayed()
            built.facts[name] = {
                **settle(recorded, device),
                "parity": parity(recorded(), expected, contender.precision),
            }
            built.calls[name] = recorded
        except Exception as error:  # PyTorch's, CUDA's and the engines' have no common type
            built.failed[name] = f"no CUDA graph: {reason(error)}"
    return built


def parity(outputs: object, expected: tuple[Array, ...], precision: str) -> dict[str, Any]:
    """The worst of all outputs against fp32 eager PyTorch under the same merging.

    Args:
        outputs: tensors or arrays; what comes behind the model's own is ignored.
        expected: of the reference.
        precision: whose default cosine is demanded.
    """
    got = arrays_of(outputs)[: len(expected)]
    found = [compare(one, other) for one, other in zip(got, expected, strict=True)]
    cosine, error = min(each.cosine for each in found), max(each.max_abs_error for each in found)
    return {
        "cosine": cosine,
        "max_abs_error": error if np.isfinite(error) else None,
        "magnitude": max(each.magnitude for each in found),
        "passed": cosine >= TOLERANCES[precision].cosine,  # type: ignore[index]
    }


def reason(error: BaseException) -> str:
    """An error in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}"[:300] if lines else type(error).__name__


def forget_device_memory() -> None:
    """Give back what is no longer used, so that contenders of one job do not squeeze those of the next."""
    gc.collect()
    torch._dynamo.reset()
    if torch.cuda.is_available():
        with suppress(RuntimeError):
            torch.cuda.empty_cache()


def _program(contender: Contender, model: str, batch: int, forms: MadeForms) -> RewrittenProgram:
    """The program that a contender runs, or for the library's own module the one that says how much work it is."""
    chosen = contender.forms
    if contender.kind not in _TORCH:
        chosen = chosen or target(contender.kind, contender.precision).forms
    return forms.program(model, contender.merging, contender.precision, batch, chosen)


def _module_calls(module: nn.Module, images: Array, dtype: torch.dtype, device: Device) -> _Calls:
    given = torch.from_numpy(images).to(device, dtype)

    def call() -> object:
        with torch.inference_mode():
            return module(given)

    return _Calls(plain=call, replayed=lambda: graphed(call))


def _model(
    contender: Contender,
    program: RewrittenProgram,
    model: str,
    images: Array,
    forms: MadeForms,
    device: Device,
) -> _Calls:
    module = forms.model(model).module
    assert isinstance(module, nn.Module)
    dtype = DTYPES[contender.precision]
    own: Any = copy.deepcopy(module).to(device, dtype)
    if contender.kind == "model compile":
        own = torch.compile(own, dynamic=False)
    return _module_calls(own, images, dtype, device)


def _eager(
    contender: Contender,
    program: RewrittenProgram,
    model: str,
    images: Array,
    forms: MadeForms,
    device: Device,
) -> _Calls:
    module: Any = forms.module(without_matches(program).exported)
    if contender.kind == "compile":
        module = torch.compile(module, dynamic=False)
    return _module_calls(module, images, torch.float32, device)


def _engine(
    contender: Contender,
    program: RewrittenProgram,
    model: str,
    images: Array,
    forms: MadeForms,
    device: Device,
) -> _Calls:
    engine = target(contender.kind, contender.precision)
    loaded, known = forms.model(model), forms.reference(model, contender.merging, images).outputs
    request = EmitRequest(
        input=TensorSpec(name=loaded.input_name, dtype=images.dtype.name, shape=images.shape),
        outputs=tuple(
            TensorSpec(name=name, dtype="float32", shape=(len(images), *array.shape[1:]))
            for name, array in zip(loaded.output_names, known, strict=True)
        ),
        precision=contender.precision,
        forms=contender.forms or engine.forms,
        options=engine.options(**(_ENGINE_OPTIONS.get(contender.kind, {}) if device == "cuda" else {})),
    )
    folder = tempfile.TemporaryDirectory()
    artifact = engine.emit(without_matches(program), request, Path(folder.name))
    runner: Any = artifact.runner

    def call_on_cpu(held: object = folder) -> object:
        return runner(images)

    def replayed() -> Call:
        replay: Call = runner.on_device(images, cuda_graph=True)
        return replay

    plain = runner.on_device(images, cuda_graph=False) if device == "cuda" else call_on_cpu
    return _Calls(plain=plain, replayed=_holding(replayed, folder), facts={"engine": dict(artifact.details)})


def _holding(replayed: Callable[[], Call], folder: object) -> Callable[[], Call]:
    """The same function, with which a folder lives and dies."""

    def call(held: object = folder) -> Call:
        return replayed()

    return call


_TORCH: Mapping[str, Callable[..., _Calls]] = {
    "model": _model,
    "model compile": _model,
    "program": _eager,
    "compile": _eager,
}


def _matches(
    program: RewrittenProgram, contender: Contender, model: str, images: Array, forms: MadeForms
) -> dict[str, Any]:
    """How far a program merges what fp32 does, and how exact it is along its own matches."""
    reference = forms.reference(model, contender.merging, images)
    count = len(reference.outputs[0])
    results = [each[:count] for each in forms.run_whole(program, images)]
    outputs, records = results[: program.outputs], results[program.outputs :]
    shares = []
    for block, got, own in zip(program.merging_blocks, records, reference.records, strict=True):
        pairs, own_pairs = (matched_pairs(read_match(each, program.merged[block])) for each in (got, own))
        same = (pairs[:, :, None, :] == own_pairs[:, None, :, :]).all(dim=-1).any(dim=-1)
        shares.append(float(same.float().mean()))
    wide = forms.program(model, contender.merging, "fp32", count)
    followed, regret = follow_matches(wide, torch.from_numpy(images[:count]), records)
    return {
        "agreement": float(np.mean(shares)),
        "agreement_by_block": [round(share, 4) for share in shares],
        "tie_regret": regret if np.isfinite(regret) else None,
        "along_own_matches": parity(outputs, tuple(each.numpy() for each in followed), contender.precision),
    }


class _Memory:
    """Device memory that a contender takes: what it holds, and what a call needs on top.

    PyTorch's allocator knows exactly; engines have their own, of which only the device's free memory tells.
    """

    def __init__(self, device: Device, *, by_allocator: bool) -> None:
        self._on_gpu, self._by_allocator = device == "cuda", by_allocator
        if self._on_gpu:
            gc.collect()
            torch.cuda.empty_cache()
            self._before = self._held()

    def peak(self, call: Call) -> dict[str, Any]:
        """After building and warming up: bytes at most, and who says so."""
        if not self._on_gpu:
            return {"peak_memory_bytes": None, "memory_by": "not measured on a CPU"}
        torch.cuda.synchronize()
        held = self._held()
        if not self._by_allocator:
            return {"peak_memory_bytes": max(held - self._before, 0), "memory_by": "device"}
        torch.cuda.reset_peak_memory_stats()
        call()
        torch.cuda.synchronize()
        return {
            "peak_memory_bytes": torch.cuda.max_memory_allocated() - self._before,
            "memory_by": "allocator",
        }

    def _held(self) -> int:
        if self._by_allocator:
            return torch.cuda.memory_allocated()
        free, total = torch.cuda.mem_get_info()
        return total - free
