"""Build an engine into a folder that holds its ONNX: the engine, its identity, its layers."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporter.errors import InternalError
from exporter.targets.trt.build import BuildRequest, Built, build_plan
from exporter.targets.trt.files import (
    ENGINE,
    ONNX,
    Identity,
    onnx_sha256,
    options_text,
    write_atomically,
    write_record,
)
from exporter.targets.trt.inspect import Inspection, inspect_engine
from exporter.targets.trt.library import Log, start


@dataclass(frozen=True, kw_only=True)
class EngineFiles:
    """What was built.

    Attributes:
        built: the plan and the timing cache.
        identity: what the engine was built from.
        inspection: what became of the graph.
    """

    built: Built
    identity: Identity
    inspection: Inspection

    @property
    def details(self) -> Mapping[str, Any]:
        """For the manifest and the summary."""
        return {
            "attention": self.inspection.summary,
            "attention_fused": self.inspection.fused,
            "attention_total": self.inspection.attention,
            "layers": len(self.inspection.layers),
            "warnings": len(self.built.warnings),
        }


def build_files(trt: Any, folder: Path, wanted: BuildRequest, attention: int) -> EngineFiles:
    """Build `model.engine` from the folder's `model_trt.onnx`, and note down what it is.

    Args:
        trt: the package.
        folder: of the bundle.
        wanted: options and device.
        attention: how many attentions the graph has.

    Raises:
        UsageError, UnsupportedGraphError, TargetUnavailableError: as `build_plan` does.
    """
    built = build_plan(trt, folder / ONNX, wanted)
    write_atomically(folder / ENGINE, built.plan)
    identity = Identity(
        onnx_sha256=onnx_sha256(folder / ONNX),
        options=options_text(wanted.options),
        tensorrt=trt.__version__,
        compute_capability=wanted.device.capability_text,
        device=wanted.device.name,
    )
    inspection = _inspect(trt, built, attention, host_code=wanted.options.version_compatible)
    table = [layer.entries() for layer in inspection.layers]
    further = {
        "attention": {"fused": inspection.fused, "total": attention},
        "layers": table,
        "warnings": list(built.warnings),
    }
    write_record(folder, identity, further)
    return EngineFiles(built=built, identity=identity, inspection=inspection)


def _inspect(trt: Any, built: Built, attention: int, *, host_code: bool) -> Inspection:
    log = Log(trt)
    runtime = start(trt.Runtime, log)
    if host_code:
        runtime.engine_host_code_allowed = True
    engine = runtime.deserialize_cuda_engine(built.plan)
    if engine is None:
        reason = log.reason("it does not say why")
        raise InternalError(f"TensorRT cannot load the engine that it has just built: {reason}")
    return inspect_engine(trt, engine, attention)
