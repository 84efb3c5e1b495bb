# /// script
# requires-python = ">=3.11"
# dependencies = []
# ///
"""Compile an AOTInductor package on this machine from the saved program beside this file, and verify it on the sample.

    uv run build_aoti.py --out FOLDER
    pip install -r requirements_aoti.txt && python build_aoti.py --out FOLDER

Needs a C++ compiler; and for a package on a GPU CUDA's headers, of a toolkit or of the requirements, and the first GPU
that CUDA_VISIBLE_DEVICES shows. FOLDER gets `model_aoti.pt2`, good for this PyTorch and this kind of machine, and
`model_aoti.json`, which says what it was compiled from.

Exit status: 0 compiled and verified; 2 FOLDER cannot be used; 5 the package does not compute what eager PyTorch does; 7
PyTorch, a GPU or a compiler is missing or fails; 8 a file beside this one is not as it was written.
"""

import importlib
import json
import re
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from exporter.targets.sample_check import Failure, check_files, read_sample, run, shortfalls, write

RECIPE: dict[str, Any] = {}

HERE = Path(__file__).resolve().parent
PROGRAM = HERE / "model_aoti_program.pt2"
WARM_UP_CALLS, TIMED_CALLS = 10, 50


def load_library(module: str) -> Any:
    """An installed module."""
    try:
        return importlib.import_module(module)
    except (ImportError, OSError, RuntimeError) as error:
        raise Failure(7, f"{error}; pip install -r requirements_aoti.txt") from error


def cpu_instructions() -> list[str]:
    """The instruction sets of the code for the host: all that this processor has, or those of the recipe."""
    if RECIPE["instructions"] is not None:
        return list(RECIPE["instructions"])
    found: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        found.setdefault(name.strip(), value)
    if "Features" in found:  # aarch64
        return sorted(found["Features"].split())
    return sorted(
        name for name in found.get("flags", "").split() if re.fullmatch(RECIPE["instruction_names"], name)
    )


class Machine:
    """PyTorch, and the device that the package is for."""

    def __init__(self) -> None:
        self.torch = load_library("torch")
        self.device = RECIPE["options"]["device"]
        if self.device == "cuda" and not self.torch.cuda.is_available():
            raise Failure(7, f"the package is for a GPU, and PyTorch {self.torch.__version__} sees none here")
        if self.device == "cuda":
            self.find_cuda_headers()

    def find_cuda_headers(self) -> None:
        """Let PyTorch's compiler find them beside PyTorch where there is no CUDA toolkit."""
        extension = load_library("torch.utils.cpp_extension")
        if extension.CUDA_HOME is None:
            major = self.torch.version.cuda.split(".")[0]
            brought = Path(self.torch.__file__).parents[1] / "nvidia" / f"cu{major}"
            if not all((brought / "include" / name).exists() for name in ("cuda.h", "crt", "nv")):
                raise Failure(
                    7, "no CUDA headers here; pip install -r requirements_aoti.txt, or set CUDA_HOME"
                )
            extension.CUDA_HOME = str(brought)

    @property
    def identity(self) -> dict[str, str]:
        """What a package belongs to."""
        found = {"torch": self.torch.__version__, "device": self.device}
        if self.device == "cuda":
            major, minor = self.torch.cuda.get_device_capability()
            gpu = {"gpu": self.torch.cuda.get_device_name(), "compute_capability": f"{major}.{minor}"}
            return found | gpu | {"cuda": str(self.torch.version.cuda)}
        return found | {"cpu_capability": self.torch.backends.cpu.get_cpu_capability()}

    def compile(self, path: Path) -> None:
        """Write the package."""
        if RECIPE["kernels"]:
            load_library("exporter.kernels")  # registers the operators `torch.ops.exporter.*`
        passes, inductor = load_library("torch.export.passes"), load_library("torch._inductor")
        instructions = " ".join(cpu_instructions())
        own = {"exporter_torch": self.torch.__version__, "exporter_cpu_instructions": instructions}
        settings = RECIPE["settings"] | {"aot_inductor.metadata": RECIPE["metadata"] | own}
        print(
            f"compiling with PyTorch {self.torch.__version__} for {self.device}, which takes minutes",
            flush=True,
        )
        try:
            program = self.torch.export.load(PROGRAM)
            if self.device == "cuda":  # a graph asserts which GPU its tensors are on
                program = passes.move_to_device_pass(program, f"cuda:{self.torch.cuda.current_device()}")
            with self.torch.no_grad():
                inductor.aoti_compile_and_package(program, package_path=str(path), inductor_configs=settings)
        except Exception as error:  # the compiler's failures have no common type
            if isinstance(error, OSError) and error.errno is not None:
                raise  # no space, no permission
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            said = next((line for line in lines if "error:" in line), lines[0] if lines else repr(error))
            raise Failure(7, f"AOTInductor cannot compile the program here: {said[:300]}") from error

    def run(self, path: Path, inputs: list[Any]) -> tuple[list[Any], float]:
        """Every result for one batch, and the median time in ms of a call, without copies."""
        torch = self.torch
        alone = self.device == "cuda"  # no locks between threads
        package = torch._C._aoti.AOTIModelPackageLoader(str(path), "model", alone, 1, -1)
        given = [torch.from_numpy(np.ascontiguousarray(each)).to(self.device) for each in inputs]
        wait = torch.cuda.synchronize if self.device == "cuda" else int
        times_s = []
        with torch.inference_mode():
            for _ in range(WARM_UP_CALLS + TIMED_CALLS):
                wait()
                began = time.perf_counter()
                results = package.boxed_run(list(given))
                wait()
                times_s.append(time.perf_counter() - began)
        return [each.cpu().numpy() for each in results], 1000 * statistics.median(times_s[WARM_UP_CALLS:])


def build_and_verify(out: Path) -> str:
    """Do it; the verdict in one line."""
    check_files(PROGRAM.name, [PROGRAM] if PROGRAM.exists() else [], RECIPE["program_sha256"])
    sample, tolerances = read_sample(HERE, RECIPE, RECIPE["inputs"])
    machine = Machine()
    out.mkdir(parents=True, exist_ok=True)
    package, unproven = out / "model_aoti.pt2", out / "unproven.pt2"
    machine.compile(unproven)
    results, call_ms = machine.run(unproven, [sample[name] for name in RECIPE["inputs"]])
    wrong = [
        f"{name}: {phrase}"
        for name, got in zip(RECIPE["outputs"], results, strict=False)  # matches may follow
        for phrase in shortfalls(got, sample[name], tolerances)
    ]
    if wrong:
        hint = f"kept as {unproven}; a near-tie that its kernels decide otherwise looks like this too"
        raise Failure(5, f"not what eager PyTorch computes: {'; '.join(wrong)}; {hint}")
    unproven.replace(package)
    identity = machine.identity | {
        "program_sha256": RECIPE["program_sha256"],
        "options": json.dumps(RECIPE["options"], sort_keys=True),
    }
    record = json.dumps({"identity": identity}, indent=2, sort_keys=True)
    write(out / "model_aoti.json", f"{record}\n".encode())
    speed = f"{call_ms:.3f} ms for a batch of {len(sample[RECIPE['inputs'][0]])}, launched"
    return f"verified: {package}: as eager PyTorch within tolerances; {speed}"


if __name__ == "__main__":
    sys.exit(run("Compile an AOTInductor package on this machine, and verify it.", build_and_verify, HERE))
