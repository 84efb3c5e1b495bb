"""The process that builds contenders: `python -m tools.gpu.build DEVICE FOLDER`, asked over stdin.

A contender is built as files that a race loads. It is also loaded here once, to compare its outputs with fp32 eager
PyTorch and to list its kernels. Requests are `machine` and `build`.
"""

import gc
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from exporter.benchmark import Contender, Device, EngineFile, WarmUp
from exporter.benchmark.loading import arrays_of, load_contender
from exporter.benchmark.messages import Job as Loading
from exporter.errors import ExportError, InternalError, TargetUnavailableError
from exporter.forms import Forms
from exporter.machine import cpu_model, cuda_facts, usable_cores
from exporter.processes.serving import serve
from exporter.records import to_tree
from exporter.rewrite import RewrittenProgram
from exporter.targets import Array, EmitRequest, Signature, TensorSpec, target
from exporter.validation import TOLERANCES, compare
from exporter.validation.follow import follow_matches
from tools.gpu.jobs import LISTS, MODELS, RACED_AS, Job, Way
from tools.gpu.kernels import list_kernels
from tools.gpu.programs import PICTURES, Programs, without_matches

_ENGINE_OPTIONS: Mapping[str, Mapping[str, Any]] = {"onnx": {"provider": "cuda"}, "aoti": {"device": "cuda"}}
"""Options with which an engine runs on a GPU; the others run nowhere else."""


class Builder:
    """Builds contenders into a folder.

    Attributes:
        device: that they run on.
        folder: an existing one.
    """

    def __init__(self, device: Device, folder: Path) -> None:
        self.device = device
        self.folder = folder
        self._programs: Programs | None = None

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Answer one request.

        Raises:
            InternalError: the request is unknown.
        """
        match request["ask"]:
            case "machine":
                return machine(self.device)
            case "build":
                job = LISTS[request["list"]][request["job"]]
                way = job.ways[request["way"]]
                try:
                    return self.build(job, way)
                except ExportError as error:
                    return {"failed": str(error)}
            case other:
                raise InternalError(f"a builder was asked to {other}")

    def build(self, job: Job, way: Way) -> dict[str, Any]:
        """Build and check one contender: `contender` and `facts`, as JSON values.

        Raises:
            ExportError: it cannot be built here.
        """
        if self._programs is None or self._programs.name != job.model:
            self._programs = Programs(name=job.model, device=self.device)
        programs = self._programs
        started = time.perf_counter()
        images = programs.images(job.batch)
        contender, program, facts = self._contender(programs, job, way)
        loading = Loading(
            contender=contender,
            images=self.folder,
            threads=len(usable_cores()),
            cores=(),
            device=self.device,
            warm_up=WarmUp(),
        )
        call = load_contender(loading, images).call
        facts["parity"] = parity(call(), programs.expected(way.merging, images), way.precision)
        facts["build_s"] = round(time.perf_counter() - started, 2)
        if way.kind == "program" and program.merging_blocks:
            facts["along_own_matches"] = self._along_own_matches(programs, way, images)
        if job.kernels and way.kind in RACED_AS and not way.graph:
            facts["kernels"] = list_kernels(call, self.device)
        del call
        gc.collect()
        return {"contender": to_tree(contender), "facts": facts}

    def _contender(
        self, programs: Programs, job: Job, way: Way
    ) -> tuple[Contender, RewrittenProgram, dict[str, Any]]:
        """A contender, the program that it runs or that says how much work it is, and facts of its engine."""
        forms = way.forms if way.kind in RACED_AS else way.forms or _default_forms(way, self.device)
        program = programs.program(way.merging, way.precision, job.batch, forms)
        contender = partial(
            Contender,
            name=way.name,
            kind=RACED_AS.get(way.kind, "engine"),
            batch=job.batch,
            reduced=way.merging != "dense",
            executed_macs=program.executed_macs,
            cuda_graph=way.graph,
        )
        if way.kind in ("model", "model compile"):
            return contender(model=MODELS[job.model], precision=way.precision), program, {}
        folder = self.folder / f"{job.name} {way.name}".replace("/", "-").replace(" ", "-")
        folder.mkdir(exist_ok=True)
        if way.kind in RACED_AS:
            torch.export.save(without_matches(program).exported, folder / "program.pt2")
            return contender(program=folder / "program.pt2"), program, {}
        file, details = self._engine(programs, job, way, program, folder)
        return contender(target=way.kind, engine=file), program, {"engine": details}

    def _engine(
        self, programs: Programs, job: Job, way: Way, program: RewrittenProgram, folder: Path
    ) -> tuple[EngineFile, dict[str, Any]]:
        engine, model = target(way.kind, way.precision), programs.model
        given = _options(way, self.device)
        expected = programs.expected(way.merging, programs.images(job.batch))
        request = EmitRequest(
            signature=Signature(
                inputs=tuple(
                    TensorSpec(name=name, dtype="float32", shape=(job.batch, *each.shape))
                    for name, each in model.inputs.items()
                ),
                outputs=tuple(
                    TensorSpec(name=name, dtype="float32", shape=array.shape)
                    for name, array in zip(model.output_names, expected, strict=True)
                ),
            ),
            precision=way.precision,
            forms=way.forms or _default_forms(way, self.device),
            options=engine.options(**given),
        )
        artifact = engine.emit(without_matches(program), request, folder)
        file = EngineFile(
            target=way.kind,
            path=folder / artifact.file,
            signature=request.signature,
            options=dict(given),
        )
        return file, dict(artifact.details)

    def _along_own_matches(self, programs: Programs, way: Way, images: Array) -> dict[str, Any]:
        """Parity of a program with fp32 merging the same tokens: rounding may turn a near-tie."""
        pictures = images[:PICTURES]
        program = programs.program(way.merging, way.precision, len(pictures), way.forms)
        results = programs.run(program, pictures)
        outputs, records = results[: program.outputs], results[program.outputs :]
        wide = programs.program(way.merging, "fp32", len(pictures))
        followed, regret = follow_matches(wide, [torch.from_numpy(pictures)], records)
        found = parity(outputs, tuple(each.numpy() for each in followed), way.precision)
        return found | {"tie_regret": regret if np.isfinite(regret) else None}


def _options(way: Way, device: Device) -> Mapping[str, Any]:
    return _ENGINE_OPTIONS.get(way.kind, {}) if device == "cuda" else {}


def _default_forms(way: Way, device: Device) -> Forms:
    engine = target(way.kind, way.precision)
    return engine.default_forms(engine.options(**_options(way, device)))


def parity(outputs: object, expected: tuple[Array, ...], precision: str) -> dict[str, Any]:
    """The worst difference of all outputs to their reference.

    Args:
        outputs: tensors or arrays; results after the model's own outputs are ignored.
        expected: of the reference.
        precision: whose default cosine is demanded.
    """
    got = arrays_of(outputs)[: len(expected)]
    found = [compare(one, other) for one, other in zip(got, expected, strict=True)]
    cosine, error = min(each.cosine for each in found), max(each.max_abs_error for each in found)
    return {
        "cosine": cosine,
        "max_abs_error": error if np.isfinite(error) else None,
        "passed": cosine >= TOLERANCES[precision].cosine,  # type: ignore[index]
    }


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
    serve(Builder(device, Path(sys.argv[2])).answer)


if __name__ == "__main__":
    main()
