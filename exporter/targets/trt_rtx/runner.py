"""Run an engine of TensorRT for RTX, on the GPUs that it was built for."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.errors import TargetUnavailableError
from exporter.targets.trt.runner import EngineRunner
from exporter.targets.trt_rtx.options import RtxOptions

if TYPE_CHECKING:
    from exporter.targets.trt.engine import Engine


@dataclass(kw_only=True)
class RtxRunner(EngineRunner):
    """Calls an engine of TensorRT for RTX."""

    options: RtxOptions = field(default_factory=RtxOptions)

    def _load_engine(self) -> "Engine":
        from exporter.targets.trt_rtx.product import RTX

        return _open_engine(RTX.load(), self.path)


def _open_engine(trt: Any, path: Path) -> "Engine":
    """Load an engine on the GPU that is here.

    Raises:
        TargetUnavailableError: it was built for another version or other GPUs.
        BundleError: it is missing or damaged.
    """
    from exporter.targets.trt import device
    from exporter.targets.trt.engine import load_engine, read_engine
    from exporter.targets.trt_rtx.files import read_identity
    from exporter.targets.trt_rtx.gpus import obstacle
    from exporter.targets.trt_rtx.product import RTX

    content, identity = read_engine(path), read_identity(path)
    here = device.find_device()
    reason = obstacle(here, identity.level)
    if here is None or reason:
        raise TargetUnavailableError(f"{path.name}: {reason}")
    if identity.tensorrt_rtx != trt.__version__:
        raise TargetUnavailableError(
            f"{path.name}: built with another {RTX.title}: expected {identity.tensorrt_rtx}, got {trt.__version__}; "
            f"{RTX.rebuild}"
        )
    return load_engine(trt, content, path.name, here, product=RTX)
