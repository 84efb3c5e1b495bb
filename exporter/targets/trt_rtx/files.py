"""The files of an engine of TensorRT for RTX.

model_rtx.engine    the serialised engine, good for one version of TensorRT for RTX and the GPUs that it was built for
model_rtx.onnx      what it was built from
model_rtx.json      identity
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

from exporter.errors import BundleError
from exporter.targets.trt.files import write_atomically
from exporter.targets.trt_rtx.options import HardwareCompatibility, RtxOptions
from exporter.targets.trt_rtx.product import RECORD


@dataclass(frozen=True, kw_only=True)
class RtxIdentity:
    """What an engine was built from.

    Attributes:
        onnx_sha256: of the model, and of the weights beside it where they are apart.
        options: that the engine depends on, as JSON.
        tensorrt_rtx: version.
    """

    onnx_sha256: str
    options: str
    tensorrt_rtx: str

    @property
    def level(self) -> HardwareCompatibility:
        """The GPUs that it was built for."""
        found: HardwareCompatibility = json.loads(self.options)["hardware_compatibility"]
        if found not in get_args(HardwareCompatibility):
            raise ValueError(f"hardware compatibility {found}")
        return found


def options_text(options: RtxOptions) -> str:
    """The options that an engine depends on, as JSON with sorted keys."""
    built = {name: value for name, value in asdict(options).items() if name != "cuda_graph"}
    return json.dumps(built, sort_keys=True)


def write_record(folder: Path, identity: RtxIdentity, warnings: Sequence[str]) -> None:
    """Note down what an engine is beside it."""
    tree = {"identity": asdict(identity), "warnings": list(warnings)}
    write_atomically(folder / RECORD, f"{json.dumps(tree, indent=2, sort_keys=True)}\n".encode())


def read_identity(engine: Path) -> RtxIdentity:
    """What is noted down beside an engine.

    Raises:
        BundleError: nothing is, or it cannot be read.
    """
    path = engine.with_name(RECORD)
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["identity"]
        identity = RtxIdentity(**{key: str(value) for key, value in entries.items()})
        assert identity.level
        return identity
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(
            f"{path.name}: expected what {engine.name} was built from, got {error}; build the bundle again"
        ) from error
