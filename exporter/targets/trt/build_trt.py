# /// script
# requires-python = ">=3.11"
# dependencies = ["tensorrt==11.4.0.106", "cuda-bindings==13.5.0", "numpy==2.4.6"]
# ///
"""Build a TensorRT engine on this machine from the ONNX model beside this file, and verify it on the sample.

    uv run build_trt.py --out FOLDER
    pip install -r requirements_trt.txt && python build_trt.py --out FOLDER

Runs as it is with TensorRT 10.14 to 11, on the first GPU that CUDA_VISIBLE_DEVICES shows. FOLDER gets `model.engine`,
good for this TensorRT and this kind of GPU, and `model_trt.json`, which says what it was built from.

Exit status: 0 built and verified; 2 FOLDER cannot be used; 4 TensorRT refuses the model; 5 the engine does not compute
what eager PyTorch does; 7 TensorRT or a GPU is missing or fails; 8 a file beside this one is not as it was written.
"""

import importlib
import json
import re
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from exporter.targets.sample_check import Failure, check_files, read_sample, run, shortfalls, write

RECIPE: dict[str, Any] = {}

HERE = Path(__file__).resolve().parent
MODEL = HERE / "model_trt.onnx"
WARM_UP_CALLS, TIMED_CALLS = 10, 50


def load_library(module: str) -> Any:
    """An installed module."""
    try:
        return importlib.import_module(module)
    except (ImportError, OSError, RuntimeError) as error:
        raise Failure(7, f"{error}; pip install -r requirements_trt.txt") from error


class Gpu:
    """A GPU, its memory and one stream; all of it is freed when the process ends."""

    def __init__(self) -> None:
        self.cuda = load_library("cuda.bindings.runtime")
        properties = self.ask("cudaGetDeviceProperties", 0)
        self.name, self.capability = properties.name.decode(), f"{properties.major}.{properties.minor}"
        self.stream = int(self.ask("cudaStreamCreate"))

    def ask(self, function: str, *arguments: Any) -> Any:
        """Call CUDA; its result, if there is one."""
        error, *results = getattr(self.cuda, function)(*arguments)
        if error != self.cuda.cudaError_t.cudaSuccess:
            said = self.cuda.cudaGetErrorString(error)[1].decode()
            raise Failure(7, f"no GPU that can be used: {function}: {said}")
        return results[0] if results else None

    def copy(self, target: int, source: int, size_bytes: int) -> None:
        """Copy to the GPU or back, which CUDA sees by the addresses, and wait for it."""
        self.ask("cudaMemcpy", target, source, size_bytes, self.cuda.cudaMemcpyKind.cudaMemcpyDefault)


class TensorRt:
    """TensorRT on a GPU, and what it complains about."""

    def __init__(self, gpu: Gpu) -> None:
        self.gpu, self.trt = gpu, load_library("tensorrt")
        self.version = self.trt.__version__
        self.major, minor = map(int, self.version.split(".")[:2])
        if not (10, 14) <= (self.major, minor) < (12, 0):
            raise Failure(7, f"expected TensorRT 10.14 or later and below 12, got {self.version}")
        self.logger = make_logger(self.trt)

    def failure(self, what: str, status: int = 7) -> Failure:
        """A failure with TensorRT's own reason."""
        said = "; ".join(self.logger.errors) or "it does not say why"
        return Failure(status, f"TensorRT {self.version} on {self.gpu.name} {what}: {said}")

    def build(self) -> Any:
        """The serialised engine."""
        trt, logger = self.trt, self.logger
        try:
            builder = trt.Builder(logger)
        except (TypeError, RuntimeError) as error:  # the bindings' words for a null pointer
            raise self.failure("cannot start; is the NVIDIA driver new enough?") from error
        strongly_typed = trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
        network = builder.create_network(0 if self.major >= 11 else 1 << int(strongly_typed))
        parser = trt.OnnxParser(network, logger)
        if not parser.parse_from_file(str(MODEL)):
            for wrong in (parser.get_error(index) for index in range(parser.num_errors)):
                where = f"node {wrong.node()} {wrong.node_name()} ({wrong.node_operator()})"
                print(f"{where}: {' '.join(wrong.desc().split())}", file=sys.stderr)
            raise self.failure(f"refuses {MODEL.name}, {parser.num_errors} errors", status=4)
        config = builder.create_builder_config()
        self.configure(config, **RECIPE["options"])
        shape = tuple(network.get_input(0).shape)
        if -1 in shape:
            profile = builder.create_optimization_profile()
            profile.set_shape(RECIPE["input"], *((batch, *shape[1:]) for batch in RECIPE["batches"]))
            if config.add_optimization_profile(profile) < 0:
                raise self.failure(f"refuses batches of {RECIPE['batches']}")
        cache = config.create_timing_cache(b"")  # has to live until the engine is built
        config.set_timing_cache(cache, False)
        print(f"building with TensorRT {self.version} on {self.gpu.name}, which takes minutes", flush=True)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise self.failure("builds no engine")
        return plan

    def configure(self, config: Any, **options: Any) -> None:
        """Apply the recipe's options."""
        trt, flags = self.trt, self.trt.BuilderFlag
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # or no attention could be counted
        config.builder_optimization_level = options["builder_level"]
        if options["workspace_mb"] is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options["workspace_mb"] << 20)
        if not options["tf32"]:
            config.clear_flag(flags.TF32)
        if options["version_compatible"]:
            config.set_flag(flags.VERSION_COMPATIBLE)
        if options["strip_plan"]:
            config.set_flag(flags.STRIP_PLAN)
        if options["strip_plan"] or options["refit"]:
            config.set_flag(flags.REFIT if options["refit"] else flags.REFIT_IDENTICAL)
        level = options["hardware_compatibility"].upper()
        config.hardware_compatibility_level = getattr(trt.HardwareCompatibilityLevel, level)

    def load(self, plan: Any) -> tuple[Any, str]:
        """The engine, a stripped one with its weights put back, and what the inspector says of it."""
        self.runtime = self.trt.Runtime(self.logger)  # has to live as long as the engine
        if RECIPE["options"]["version_compatible"]:
            self.runtime.engine_host_code_allowed = True
        engine = self.runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise self.failure("cannot load the engine that it has just built")
        inspector = engine.create_engine_inspector()
        described = inspector.get_engine_information(self.trt.LayerInformationFormat.JSON)
        if RECIPE["options"]["strip_plan"]:
            refitter = self.trt.Refitter(engine, self.logger)
            parser = self.trt.OnnxParserRefitter(refitter, self.logger)
            if not parser.refit_from_file(str(MODEL)) or not refitter.refit_cuda_engine():
                raise self.failure("does not put the weights back into the engine")
        return engine, described

    def run(self, engine: Any, images: Any) -> tuple[dict[str, Any], float]:
        """Outputs by name for one batch, and the median time in ms of a call, without copies."""
        kinds = {self.trt.DataType.FLOAT: "float32", self.trt.DataType.HALF: "float16"}
        context = engine.create_execution_context()
        if context is None or not context.set_input_shape(RECIPE["input"], images.shape):
            raise self.failure(f"cannot run a batch of {len(images)}")
        arrays = {RECIPE["input"]: np.ascontiguousarray(images)}
        for name in RECIPE["outputs"]:
            shape = tuple(context.get_tensor_shape(name))
            arrays[name] = np.zeros(shape, kinds[engine.get_tensor_dtype(name)])
        addresses = {name: int(self.gpu.ask("cudaMalloc", array.nbytes)) for name, array in arrays.items()}
        bound = [context.set_tensor_address(name, address) for name, address in addresses.items()]
        self.gpu.copy(addresses[RECIPE["input"]], arrays[RECIPE["input"]].ctypes.data, images.nbytes)
        times_s = []
        for _ in range(WARM_UP_CALLS + TIMED_CALLS):
            began = time.perf_counter()
            if not all(bound) or not context.execute_async_v3(self.gpu.stream):
                raise self.failure("does not run the engine")
            self.gpu.ask("cudaStreamSynchronize", self.gpu.stream)
            times_s.append(time.perf_counter() - began)
        for name in RECIPE["outputs"]:
            self.gpu.copy(arrays[name].ctypes.data, addresses[name], arrays[name].nbytes)
        return arrays, 1000 * statistics.median(times_s[WARM_UP_CALLS:])


def make_logger(trt: Any) -> Any:
    """What TensorRT reports to."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
                self.errors.append(" ".join(msg.split()))

    return Logger()


def count_fused(layers: list[Any]) -> int:
    """Attentions in one kernel: softmax nodes of layers whose names hold `mha`, and such layers that name none."""
    fused, unnamed = set(), 0
    for layer in layers:
        own = {"Name": layer} if isinstance(layer, str) else layer
        texts = [str(own.get(key, "")) for key in ("Name", "TacticName", "LayerType")]
        if any(re.search(r"(?:^|[^a-z])[a-z]*mha(?:[^a-z]|$)", text, re.IGNORECASE) for text in texts):
            pattern = r"\[ONNX Layer: ((?:[^\]]*/)?(?:softmax|attention)[^\]/]*)\]"
            nodes = re.findall(pattern, str(own.get("Metadata", "")), re.IGNORECASE)
            fused.update(nodes)
            unnamed += not nodes
    return min(len(fused) + unnamed, int(RECIPE["attention"]))


def model_files() -> list[Path]:
    """The model, and its weights where they are beside it."""
    return [path for path in (MODEL, MODEL.with_name(f"{MODEL.name}.data")) if path.exists()]


def build_and_verify(out: Path) -> str:
    """Do it; the verdict in one line."""
    check_files(MODEL.name, model_files(), RECIPE["onnx_sha256"])
    sample, tolerances = read_sample(HERE, RECIPE, [RECIPE["input"]])
    gpu = Gpu()
    trt = TensorRt(gpu)
    out.mkdir(parents=True, exist_ok=True)
    plan = trt.build()
    engine, described = trt.load(plan)
    got, call_ms = trt.run(engine, sample[RECIPE["input"]])
    wrong = [
        f"{name}: {phrase}"
        for name in RECIPE["outputs"]
        for phrase in shortfalls(got[name], sample[name], tolerances)
    ]
    if wrong:
        write(out / "unproven.engine", plan)
        hint = f"kept as {out / 'unproven.engine'}; a near-tie that TensorRT decides otherwise looks like this too"
        raise Failure(5, f"not what eager PyTorch computes: {'; '.join(wrong)}; {hint}")
    layers = json.loads(described or "{}").get("Layers", [])
    attention = {"fused": count_fused(layers), "total": RECIPE["attention"]}
    identity = {
        "onnx_sha256": RECIPE["onnx_sha256"],
        "options": json.dumps(RECIPE["options"], sort_keys=True),
        "tensorrt": trt.version,
        "compute_capability": gpu.capability,
        "device": gpu.name,
    }
    record = {"identity": identity, "attention": attention, "layers": layers}
    if RECIPE["options"]["strip_plan"]:
        for path in model_files():  # a stripped engine takes its weights from there
            shutil.copy(path, out)
    (out / "unproven.engine").unlink(missing_ok=True)
    write(out / "model.engine", plan)
    write(out / "model_trt.json", f"{json.dumps(record, indent=2, sort_keys=True)}\n".encode())
    fused = f"attention fused {attention['fused']}/{attention['total']}"
    speed = f"{call_ms:.3f} ms for a batch of {len(sample[RECIPE['input']])}"
    return f"verified: {out / 'model.engine'}: as eager PyTorch within tolerances; {fused}; {speed}"


if __name__ == "__main__":
    sys.exit(run("Build a TensorRT engine on this machine, and verify it.", build_and_verify, HERE))
