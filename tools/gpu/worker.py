"""The process that builds or times contenders: `python -m tools.gpu.worker DEVICE PREPARED WORK`, asked over stdin.

Requests are `machine`; `build` for what the GPU has to compile; `load`, which also compares outputs with the reference;
then `time` and `kernels` of what was loaded last. What was loaded or drawn once is kept as long as the process lives.
"""

import gc
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from exporter.benchmark.clock import open_clock
from exporter.benchmark.loading import arrays_of
from exporter.benchmark.messages import WarmUp
from exporter.benchmark.worker import run_round, warm_up
from exporter.errors import ExportError, InternalError, TargetUnavailableError
from exporter.machine import cpu_model, cuda_facts
from exporter.models.quiet import quiet
from exporter.models.request import resolve
from exporter.processes.serving import serve
from exporter.targets import Device, Signature, open_runner, options_from, target
from exporter.targets.cuda_graph import recorded
from tools.gpu.contenders import BUILT, MODELS, Contender
from tools.gpu.draw import draw, fill, pictures
from tools.gpu.kernels import list_kernels
from tools.gpu.packed import extract_onnx, read
from tools.gpu.plan import Entry, read_plan
from tools.gpu.prepare import ENGINE_OPTIONS, signature

Call = Callable[[], object]

PICTURES = 8
"""Different images; a larger batch repeats them, and so its outputs."""

ROUNDS, ROUND_MS, LEAST_CALLS, MOST_CALLS = 4, 150.0, 3, 1000
WARM_UP = WarmUp(window_ms=60.0, most_ms=1500.0)

LIMITS = {"fp32": 1e-3, "fp16": 0.1, "bf16": 0.3, "fp8": 0.7}
"""The largest `deviation` that rounding explains: some times what ViT-B/16 has on a CPU, which is 0.005 to 0.012 in
fp16, 0.05 in bf16 and 0.36 in fp8. Outputs that say nothing of the image are at 1."""


class Worker:
    """Answers requests about the entries of a plan, by their place in it."""

    def __init__(self, device: Device, prepared: Path, work: Path) -> None:
        self._device: Device = device
        self._prepared, self._work = prepared, work
        self._plan = read_plan(prepared)
        self._call: Call | None = None
        self._images: Tensor | None = None
        self._drawn: Callable[[str, str], Tensor] = cache(self._draw)
        self._program: Callable[[str, str], fx.GraphModule] = cache(self._read)
        self._library: Callable[[str], torch.nn.Module] = cache(self._create)
        self._expected: Callable[[str, str], list[Any]] = cache(self._compute)

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Answer one request.

        Raises:
            InternalError: the request is unknown.
        """
        if request["ask"] == "machine":
            return machine(self._device)
        entry = self._plan.entries[request["entry"]]
        try:
            match request["ask"]:
                case "build":
                    return self._build(entry)
                case "load":
                    return self._load(entry)
                case "time":
                    return self._time()
                case "kernels":
                    return self._kernels(entry)
        except ExportError as error:
            return {"failed": str(error)}
        raise InternalError(f"a worker was asked to {request['ask']}")

    def _build(self, entry: Entry) -> dict[str, Any]:
        """Write what is compiled on this device; of a program, have its kernels compiled, which the cache keeps."""
        contender = entry.contender
        if contender.kind not in BUILT:
            self._call_of(entry, self._batch(contender))()
            return {}
        with quiet():
            target(contender.kind).check_available()
            (self._build_aoti if contender.kind == "aoti" else self._build_trt)(entry)
        return {}

    def _load(self, entry: Entry) -> dict[str, Any]:
        self._call = self._images = None
        gc.collect()
        if self._device == "cuda":
            torch.cuda.empty_cache()  # the memory of the last recording
        contender = entry.contender
        self._images = self._batch(contender)
        call = self._call_of(entry, self._images)
        launched = contender.kind in ("library", "program")
        self._call = recorded(call) if launched and contender.graph and self._device == "cuda" else call
        outputs = self._call()
        if entry.reference is None:
            return {}
        expected = self._expected(contender.model, entry.reference)
        return compare(arrays_of(outputs), expected, contender.precision)

    def _time(self) -> dict[str, Any]:
        assert self._call is not None
        clock, call = open_clock(self._device), self._call

        def timed() -> float:
            return clock(call)[0]

        on_gpu = self._device == "cuda"
        settled = warm_up(timed, WARM_UP)[1] if on_gpu else True
        gc.collect()
        round_ms = ROUND_MS if on_gpu else 0.0
        rounds = [
            run_round(timed, min_ms=round_ms, min_calls=LEAST_CALLS, max_calls=MOST_CALLS)
            for _ in range(ROUNDS if on_gpu else 1)
        ]
        return {"settled": settled, "rounds": [[round(each, 5) for each in samples] for samples in rounds]}

    def _kernels(self, entry: Entry) -> dict[str, Any]:
        assert entry.file is not None and self._images is not None
        program = self._program(entry.contender.model, entry.file)
        return {"kernels": list_kernels(program, self._images, self._device)}

    def _call_of(self, entry: Entry, images: Tensor) -> Call:
        contender = entry.contender
        if contender.kind in ("library", "program"):
            if contender.kind == "library":
                module, given = self._library(contender.model), images.half()
            else:
                assert entry.file is not None
                module, given = self._program(contender.model, entry.file), images

            def call() -> object:
                with torch.inference_mode():
                    return module(given)

            return call
        path = self._onnx(entry) if contender.kind == "onnx" else self._engine_path(entry)
        options = options_from(contender.kind, self._options(contender))
        runner = open_runner(contender.kind, path, signature=self._signature(entry), options=options)
        batch = images.cpu().numpy()
        if self._device == "cpu":
            return lambda: runner(batch)
        return runner.enqueue(batch, cuda_graph=contender.graph)

    def _build_aoti(self, entry: Entry) -> None:
        from exporter.targets.aoti.compile import compile_package

        assert entry.file is not None
        program = read(
            self._prepared / entry.file, lambda name: self._drawn(entry.contender.model, name), self._device
        )
        program.example_inputs = ((self._batch(entry.contender),), {})
        options = options_from("aoti", self._options(entry.contender))
        compile_package(program, len(entry.outputs), self._engine_path(entry), options, {})

    def _build_trt(self, entry: Entry) -> None:
        from exporter.targets.trt.build import BuildRequest, build_plan
        from exporter.targets.trt.device import current_device
        from exporter.targets.trt.library import tensorrt

        wanted = BuildRequest(
            inputs=(self._plan.models[entry.contender.model].input,),
            options=options_from("trt", {}),
            device=current_device(),
        )
        built = build_plan(tensorrt(), self._onnx(entry), wanted)
        self._engine_path(entry).write_bytes(built.plan)

    def _engine_path(self, entry: Entry) -> Path:
        return self._folder(entry) / ("model_aoti.pt2" if entry.contender.kind == "aoti" else "model.engine")

    def _onnx(self, entry: Entry) -> Path:
        assert entry.file is not None
        folder, model = self._folder(entry), entry.contender.model
        return extract_onnx(
            self._prepared / entry.file, folder, lambda name: self._drawn(model, name), self._device
        )

    def _folder(self, entry: Entry) -> Path:
        folder = self._work / entry.contender.name.replace(" ", "-")
        folder.mkdir(exist_ok=True)
        return folder

    def _options(self, contender: Contender) -> Mapping[str, Any]:
        return ENGINE_OPTIONS[contender.kind] if self._device == "cuda" else {}

    def _signature(self, entry: Entry) -> Signature:
        contender = entry.contender
        return signature(self._plan.models[contender.model], contender.batch, entry.outputs)

    def _batch(self, contender: Contender) -> Tensor:
        image = self._plan.models[contender.model].image
        shown = pictures(PICTURES, image, self._device)
        return shown[torch.arange(contender.batch, device=self._device) % PICTURES]

    def _draw(self, model: str, name: str) -> Tensor:
        return draw(name, self._plan.models[model].parameters[name], self._device)

    def _read(self, model: str, file: str) -> fx.GraphModule:
        program = read(self._prepared / file, lambda name: self._drawn(model, name), self._device)
        module = program.module(check_guards=False)
        assert isinstance(module, fx.GraphModule)
        return module

    def _create(self, model: str) -> torch.nn.Module:
        import timm

        parameters = self._plan.models[model].parameters
        request, options = MODELS[model], dict[str, Any](MODELS[model].options)
        with torch.device("meta"):  # its own initialisation takes seconds
            module: torch.nn.Module = timm.create_model(resolve(request).id, **options)
        module = module.half().to_empty(device=self._device).eval()
        fill(module, {name: self._drawn(model, name) for name in parameters})
        return module

    def _compute(self, model: str, reference: str) -> list[Any]:
        shown = pictures(PICTURES, self._plan.models[model].image, self._device)
        with torch.inference_mode():
            return arrays_of(self._program(model, reference)(shown))


def compare(outputs: list[Any], expected: list[Any], precision: str) -> dict[str, Any]:
    """Outputs against the reference, whose rows repeat.

    Returns:
        `cosine` of the worst row, `max_abs_error`, and `deviation`: the error over how much images differ in the
        reference, both as root mean squares. `right` if that is within the limit of the precision.
    """
    found = [_difference(*each) for each in zip(outputs, expected, strict=True)]
    cosine, error = min(each[0] for each in found), max(each[1] for each in found)
    deviation = max(each[2] for each in found)
    finite = all(map(torch.isfinite, map(torch.tensor, (cosine, error, deviation))))
    return {
        "cosine": cosine if finite else None,
        "max_abs_error": error if finite else None,
        "deviation": deviation if finite else None,
        "right": finite and deviation <= LIMITS[precision],
    }


def _difference(output: Any, expected: Any) -> tuple[float, float, float]:
    wanted = torch.from_numpy(expected).flatten(1).double()
    spread = (wanted - wanted.mean(0)).square().mean().sqrt()
    got = torch.from_numpy(output).flatten(1).double()
    wanted = wanted[torch.arange(len(got)) % len(wanted)]
    error = got - wanted
    cosine = torch.nn.functional.cosine_similarity(got, wanted).min()
    return float(cosine), float(error.abs().max()), float(error.square().mean().sqrt() / spread)


def machine(device: Device) -> dict[str, Any]:
    """The device and its software.

    Raises:
        TargetUnavailableError: a GPU is asked for, and PyTorch sees none.
    """
    if device == "cpu":
        return {"device": f"cpu: {cpu_model()}", "torch": torch.__version__}
    if not torch.cuda.is_available():
        raise TargetUnavailableError(
            f"gpu_check: needs an NVIDIA GPU, and PyTorch {torch.__version__} sees none here; nothing was run"
        )
    facts, capability = cuda_facts(), torch.cuda.get_device_capability()
    return {
        **facts,
        "device": facts["name"],
        "compute_capability": ".".join(map(str, capability)),
        "torch": torch.__version__,
    }


def main() -> None:
    """Run the process."""
    device: Device = "cpu" if sys.argv[1] == "cpu" else "cuda"
    torch.backends.cuda.matmul.allow_tf32 = False  # references are fp32
    torch.backends.cudnn.allow_tf32 = False
    serve(Worker(device, Path(sys.argv[2]), Path(sys.argv[3])).answer)


if __name__ == "__main__":
    main()
