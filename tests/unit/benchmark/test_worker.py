"""The worker: windows and warm-up on invented times, each kind of contender, and a real process."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from exporter.benchmark import Contender, EngineFile, WarmUp
from exporter.benchmark.loading import arrays_of, load_contender, read_inputs, write_inputs
from exporter.benchmark.messages import Job
from exporter.benchmark.race import WORKER, worker_environment
from exporter.benchmark.worker import Worker, run_round, run_window, warm_up
from exporter.errors import InternalError, TargetUnavailableError, UsageError
from exporter.models import ModelRequest, load
from exporter.processes.child import Child, ChildFailure
from exporter.records import message_from, to_tree
from tests.support.fake_runner import FakeRunner
from tests.unit.benchmark.contenders import BATCH, QUICK, SIZE, as_engine, as_program

DIGITS = ModelRequest(model="vit_digits")
ODD = replace(DIGITS, image_size=(64, 32), options={"flag": True, "size": (8, 4), "rate": 0.5, "none": None})


def taking(*milliseconds: float) -> Any:
    """A call that takes these times in turn, and the last of them for ever."""

    def times() -> Iterator[float]:
        yield from milliseconds
        while True:
            yield milliseconds[-1]

    return times().__next__


def job(contender: Contender, images: Path, **changes: Any) -> Job:
    fields: dict[str, Any] = {"threads": 1, "cores": (0,), "device": "cpu", "warm_up": QUICK, **changes}
    return Job(contender=contender, images=images, **fields)


def outputs_of(asked: Job) -> list[Any]:
    """Return the arrays that the contender of a job gives for its input batch."""
    return arrays_of(load_contender(asked, read_inputs(asked)).call())


def digits(name: str, kind: Any, **more: Any) -> Contender:
    """Return a contender that loads the digits model."""
    return Contender(name=name, kind=kind, batch=1, reduced=False, executed_macs=1, model=DIGITS, **more)


# Windows --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ms", "limits", "calls"),
    [
        pytest.param(30.0, {"min_ms": 100, "min_calls": 1}, 4, id="as long as asked"),
        pytest.param(500.0, {"min_ms": 100, "min_calls": 3}, 3, id="as many as asked"),
        pytest.param(0.01, {"min_ms": 100, "min_calls": 1, "max_calls": 5}, 5, id="never more than allowed"),
    ],
)
def test_window_ends_by_time_and_by_calls(ms: float, limits: dict[str, Any], calls: int) -> None:
    assert run_window(taking(ms), **limits) == [ms] * calls


def test_first_call_of_a_round_does_not_count() -> None:
    assert run_round(taking(90.0, 1.0, 2.0, 3.0), min_ms=0, min_calls=3, max_calls=9) == [1.0, 2.0, 3.0]


def test_warm_up_ends_when_two_windows_agree() -> None:
    """Windows of two: medians 35, 12.5 and 12, which are 4 % apart."""
    until = WarmUp(window_calls=2, window_ms=0, tolerance=0.05, most_ms=1000)

    assert warm_up(taking(50, 20, 13, 12, 12, 12), until) == (6, True)


def test_warm_up_that_never_settles_says_so() -> None:
    """Windows of one call, each half as long as the one before: 512 + 256 + ... is past 900 after the third."""
    until = WarmUp(window_calls=1, window_ms=0, tolerance=0.05, most_ms=890)

    assert warm_up(taking(512, 256, 128, 64, 32), until) == (3, False)


# Kinds ----------------------------------------------------------------------------------------------


def test_job_survives_its_journey(engine: EngineFile, images: Path) -> None:
    for contender in (
        as_engine("dense onnx", engine),
        Contender(name="e", kind="module", batch=1, reduced=False, executed_macs=1, model=ODD),
    ):
        sent = job(contender, images, warm_up=WarmUp(tolerance=0.1))
        assert message_from(Job, to_tree(sent)) == sent


def test_engine_and_program_compute_the_model(
    engine: EngineFile, program: Path, images: Path, weights: Any
) -> None:
    expected = np.load(images) @ weights[0] @ weights[1]

    for contender in (as_engine("onnx", engine), as_program("eager", program)):
        (got,) = outputs_of(job(contender, images))
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@pytest.fixture
def digit_images(tmp_path: Path) -> Path:
    shape = load(DIGITS).example_input.shape
    np.save(tmp_path / "digits.npy", np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32))
    return tmp_path / "digits.npy"


def test_module_computes_what_its_source_loads(digit_images: Path) -> None:
    module = load(DIGITS).module
    assert isinstance(module, nn.Module)

    (got,) = outputs_of(job(digits("eager dense", "module"), digit_images))

    expected = module(torch.from_numpy(np.load(digit_images)))
    np.testing.assert_allclose(got, expected.numpy(), rtol=1e-5, atol=1e-6)


def test_compiled_is_torch_compile_of_the_module(digit_images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is passed to the compiler; compiling takes too long for a test."""
    seen: list[tuple[object, dict[str, object]]] = []

    def compile_(module: nn.Module, **options: object) -> nn.Module:
        seen.append((module, options))
        return nn.Identity()

    monkeypatch.setattr(torch, "compile", compile_)

    (got,) = outputs_of(job(digits("compiled", "compiled"), digit_images))

    assert [(type(module), options) for module, options in seen] == [
        (type(load(DIGITS).module), {"dynamic": False})
    ]
    np.testing.assert_array_equal(got, np.load(digit_images))


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_module_is_cast_with_its_images(precision: Any, digit_images: Path) -> None:
    asked = job(digits("e", "module", precision=precision), digit_images)

    outputs = load_contender(asked, read_inputs(asked)).call()

    assert isinstance(outputs, torch.Tensor)
    assert outputs.dtype == {"fp16": torch.float16, "bf16": torch.bfloat16}[precision]


def test_compiled_program_is_torch_compile_of_it(
    program: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", lambda module, **options: lambda given: -module(given))
    asked = job(as_program("eager", program), images)
    compiled = replace(asked, contender=replace(asked.contender, kind="compiled"))

    (plain,), (negated,) = outputs_of(asked), outputs_of(compiled)

    np.testing.assert_allclose(negated, -plain)


def test_every_tensor_that_a_call_returns_is_read() -> None:
    outputs = {"a": torch.ones(2), "b": [np.zeros(1), (torch.zeros(3, dtype=torch.bfloat16),)]}

    assert [array.tolist() for array in arrays_of(outputs)] == [[1.0, 1.0], [0.0], [0.0, 0.0, 0.0]]


@pytest.mark.parametrize(
    ("array", "words"),
    [
        pytest.param(np.zeros((BATCH + 1, SIZE), np.float32), ["expected 2", "got 3"], id="another batch"),
        pytest.param(None, ["images.npy", "numpy.save"], id="no file"),
    ],
)
def test_wrong_input_batch_is_refused(
    array: Any, words: list[str], engine: EngineFile, tmp_path: Path
) -> None:
    if array is not None:
        np.save(tmp_path / "images.npy", array)

    with pytest.raises(UsageError) as caught:
        read_inputs(job(as_engine("onnx", engine), tmp_path / "images.npy"))

    assert [word for word in words if word not in str(caught.value)] == []


def test_pickled_input_batch_is_never_opened(engine: EngineFile, tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", np.array([object()] * BATCH), allow_pickle=True)

    with pytest.raises(UsageError, match="got object of shape"):
        read_inputs(job(as_engine("onnx", engine), tmp_path / "images.npy"))


def test_outputs_that_are_not_numbers_are_not_timed(
    engine: EngineFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_setaffinity", lambda process, cores: None)
    np.save(tmp_path / "images.npy", np.full((BATCH, SIZE), np.nan, np.float32))
    request = {"ask": "prepare", "job": to_tree(job(as_engine("onnx", engine), tmp_path / "images.npy"))}

    with pytest.raises(UsageError, match="NaN"):
        Worker().answer(request)


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        pytest.param(
            "engine", {"device": "cuda"}, "expected cuda, got a runner on cpu", id="engine of a CPU"
        ),
        pytest.param(
            "program",
            {"device": "cuda"},
            "device cuda",
            id="no CUDA here",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="is about a machine without CUDA"),
        ),
        pytest.param("graph", {}, "CUDA graphs need device cuda", id="CUDA graph on a CPU"),
    ],
)
def test_device_that_a_contender_cannot_use_makes_it_unavailable(
    kind: str, changes: dict[str, Any], words: str, engine: EngineFile, program: Path, images: Path
) -> None:
    eager = replace(as_program("eager", program), cuda_graph=kind == "graph")
    asked = job(as_engine("onnx", engine) if kind == "engine" else eager, images, **changes)

    with pytest.raises(TargetUnavailableError, match=words):
        load_contender(asked, read_inputs(asked))


@pytest.mark.parametrize(
    ("threads", "names"),
    [pytest.param(0, [], id="told"), pytest.param(None, ["threads"], id="cannot be told")],
)
def test_an_engine_that_cannot_be_told_its_threads_is_noted(
    threads: int | None,
    names: list[str],
    engine: EngineFile,
    images: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runner = FakeRunner(compute=lambda array: {"out": array}, threads=threads)
    monkeypatch.setattr("exporter.benchmark.loading.open_runner", lambda *names, **specs: runner)
    asked = job(as_engine("onnx", engine), images)

    loaded = load_contender(asked, read_inputs(asked))

    assert [note.split(":")[0] for note in loaded.notes] == names
    assert runner.threads == (None if threads is None else asked.threads)
    assert loaded.profile is not None and loaded.profile(images.parent) is None
    np.testing.assert_array_equal(arrays_of(loaded.call())[0], np.load(images))


def test_several_inputs_travel_to_a_worker_by_name(engine: EngineFile, tmp_path: Path) -> None:
    given: dict[str, Any] = {"ids": np.ones((BATCH, 3), np.int64), "mask": np.zeros((BATCH, 4), np.float32)}
    path = write_inputs(tmp_path / "inputs.npy", given)

    got = read_inputs(job(as_engine("onnx", engine), path))

    assert isinstance(got, dict) and list(got) == list(given)
    for name, array in given.items():
        np.testing.assert_array_equal(got[name], array)


def test_graph_breaks_of_the_compiler_are_noted(
    engine: EngineFile, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counters = {"graph_break": {"data-dependent branch": 2, "print": 1}}
    monkeypatch.setitem(sys.modules, "torch._dynamo.utils", SimpleNamespace(counters=counters))
    monkeypatch.setattr("os.sched_setaffinity", lambda process, cores: None)
    request = {"ask": "prepare", "job": to_tree(job(as_engine("onnx", engine), images))}

    notes = Worker().answer(request)["notes"]

    assert "graph-breaks: torch.compile left the graph 3 times" in notes


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param({"ask": "dance"}, id="unknown"),
        pytest.param({"ask": "round", "min_ms": 0, "min_calls": 1, "max_calls": 1}, id="not prepared"),
    ],
)
def test_request_out_of_turn_is_a_bug(request_: dict[str, Any]) -> None:
    with pytest.raises(InternalError):
        Worker().answer(request_)


def test_contender_without_what_its_kind_needs_is_a_bug() -> None:
    with pytest.raises(InternalError, match="without its program"):
        Contender(name="x", kind="program", batch=1, reduced=False, executed_macs=1)


# A process ------------------------------------------------------------------------------------------

OBSERVER = """
import os, sys
from exporter.benchmark.worker import Worker
from exporter.processes.serving import serve

worker = Worker()

def answer(request):
    print("chatter of a library")
    os.write(1, b"chatter of native code; ")
    answered = worker.answer(request)
    with open("/proc/self/status") as status:
        fields = dict(line.split(":", 1) for line in status)
    return {**answered, "modules": list(sys.modules), "cores": fields["Cpus_allowed_list"].strip()}

serve(answer)
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Child]]:
    """Starts a worker process."""
    started: list[Child] = []

    def begin(command: tuple[str, ...] = WORKER) -> Child:
        started.append(Child(command, worker_environment(1, tmp_path), tmp_path / "worker.log"))
        return started[-1]

    yield begin
    for process in started:
        process.kill()


def test_engine_worker_is_free_of_torch_and_pinned(
    start: Callable[..., Child], engine: EngineFile, images: Path, tmp_path: Path
) -> None:
    observed = start((sys.executable, "-c", OBSERVER))
    request = {"ask": "prepare", "job": to_tree(job(as_engine("onnx", engine), images, cores=(0,)))}
    prepared = observed.ask(request, timeout_s=60)
    timed = observed.ask({"ask": "round", "min_ms": 0, "min_calls": 4, "max_calls": 4}, timeout_s=60)
    finished = observed.ask({"ask": "finish"}, timeout_s=60)

    heavy = {"torch", "scipy", "timm", "onnx"} & set(finished["modules"])
    assert "onnxruntime" in finished["modules"]
    assert heavy == set()
    assert prepared["cores"] == "0"
    assert prepared["load_ms"] > 0 and prepared["first_ms"] > 0
    assert (prepared["warm_up_calls"], prepared["settled"]) == (4, True)
    assert len(timed["samples_ms"]) == 4 and min(timed["samples_ms"]) > 0
    assert finished["peak_memory_bytes"] > 10 * 2**20  # an interpreter with numpy is larger
    assert finished["peak_since"] in ("load", "start")
    log = (tmp_path / "worker.log").read_text(encoding="utf-8")
    assert log.count("chatter of native code") == 3 and "chatter of a library" in log


def test_program_worker_answers_the_whole_protocol(
    start: Callable[..., Child], program: Path, images: Path
) -> None:
    process = start()
    request = {"ask": "prepare", "job": to_tree(job(as_program("eager", program), images))}
    prepared = process.ask(request, timeout_s=300)
    timed = process.ask({"ask": "round", "min_ms": 0, "min_calls": 4, "max_calls": 4}, timeout_s=60)
    finished = process.ask({"ask": "finish"}, timeout_s=60)

    assert prepared["notes"] == []
    assert len(timed["samples_ms"]) == 4 and min(timed["samples_ms"]) > 0
    assert finished["peak_memory_bytes"] > 100 * 2**20  # PyTorch is larger


def test_worker_says_why_it_cannot_load(
    start: Callable[..., Child], engine: EngineFile, images: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    broken = as_engine("onnx", replace(engine, path=tmp_path / "broken.onnx"))

    with pytest.raises(ChildFailure, match=r"broken\.onnx"):
        start().ask({"ask": "prepare", "job": to_tree(job(broken, images))}, timeout_s=60)
