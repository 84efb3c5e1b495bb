"""The one place that imports Torch-TensorRT, and says what is missing where that fails."""

import importlib
import importlib.util
import sys
from typing import Any

from exporter.errors import TargetUnavailableError
from exporter.models.quiet import quiet

NAME = "torch_tensorrt"
INSTALL = 'pip install "exporter[torch-trt]"'


def load_library() -> Any:
    """Torch-TensorRT, imported.

    Raises:
        TargetUnavailableError: it is not installed, there is no GPU, or TensorRT's libraries do not load.
    """
    import torch

    if importlib.util.find_spec(NAME) is None:
        raise TargetUnavailableError(
            f"target torch-trt: needs Torch-TensorRT and an NVIDIA GPU; install it with {INSTALL}"
        )
    if compute_capability() is None:
        raise TargetUnavailableError(
            f"target torch-trt: needs an NVIDIA GPU, and PyTorch {torch.__version__} sees none here"
        )
    try:
        with quiet():
            for part in ("dynamo", "runtime"):
                importlib.import_module(f"{NAME}.{part}")
            return importlib.import_module(NAME)
    except Exception as error:  # it wraps what went wrong with TensorRT's libraries in plain exceptions
        raise TargetUnavailableError(
            f"target torch-trt: Torch-TensorRT is installed and does not load ({error}); its version has to match "
            f"PyTorch {torch.__version__}: {INSTALL}"
        ) from error


def compute_capability() -> str | None:
    """Of the GPU that PyTorch uses, such as "90"; None where it sees none."""
    import torch

    if not torch.cuda.is_available():
        return None
    major, minor = torch.cuda.get_device_capability()
    return f"{major}{minor}"


def versions(library: Any) -> dict[str, str]:
    """What an engine depends on: PyTorch, Torch-TensorRT, TensorRT, and the GPU.

    Args:
        library: Torch-TensorRT, which has imported TensorRT.
    """
    import torch

    return {
        "torch": torch.__version__,
        "torch_tensorrt": str(library.__version__),
        "tensorrt": str(getattr(sys.modules.get("tensorrt"), "__version__", "unknown")),
        "compute_capability": str(compute_capability()),
    }
