"""Call Torch-TensorRT: what is passed, and why.

In: a prepared program. Out: a graph of engines and, where the gate allows it, PyTorch subgraphs.
"""

import inspect
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

from exporter.errors import TargetUnavailableError
from exporter.forms import Precision
from exporter.models.quiet import quiet
from exporter.targets.torch_trt.options import TorchTrtOptions

_MEBIBYTE = 1 << 20


def build(
    library: Any,
    prepared: ExportedProgram,
    examples: Sequence[Tensor],
    precision: Precision,
    options: TorchTrtOptions,
) -> fx.GraphModule:
    """Partition and convert.

    Args:
        library: Torch-TensorRT.
        prepared: on the GPU.
        examples: one batch (B, ...) for every input, on the GPU; only shapes and dtypes matter.
        precision: that the program is typed in.
        options: how to build.

    Raises:
        TargetUnavailableError: TensorRT cannot build an engine on this machine.
    """
    compiler = library.dynamo.compile
    with tempfile.TemporaryDirectory() as scratch:
        cache = options.timing_cache or str(Path(scratch) / "timing.cache")
        settings = build_settings(options, precision, cache)
        if "use_explicit_typing" in inspect.signature(compiler).parameters:
            settings["use_explicit_typing"] = True  # the only way from 2.12 on, where the switch is gone
        try:
            with quiet(), torch.no_grad():
                compiled = compiler(prepared, arg_inputs=list(examples), **settings)
        except OSError:
            raise  # no space, no permission: reported as such
        except Exception as error:  # converters and builder have no common error type
            raise TargetUnavailableError(
                f"target torch-trt: Torch-TensorRT {library.__version__} cannot build an engine here: {_first(error)}"
            ) from error
    assert isinstance(compiled, fx.GraphModule)
    return compiled


def build_settings(options: TorchTrtOptions, precision: Precision, timing_cache: str) -> dict[str, Any]:
    """Keyword arguments of `torch_tensorrt.dynamo.compile`, all of which 2.11 to 2.14 have.

    Args:
        options: of the recipe.
        precision: that the program is typed in.
        timing_cache: file; the library's default lies in a folder that outlives the process.
    """
    return {
        "attn_bias_is_causal": False,  # its default, True, replaces the bias of log sizes by a causal mask
        "disable_tf32": precision == "fp32",  # 10 bits of mantissa are not fp32
        "truncate_double": False,
        "require_full_compilation": False,  # the gate names what fell back; this only fails
        "min_block_size": options.min_block_size,
        "optimization_level": options.optimization_level,
        "workspace_size": options.workspace_mb * _MEBIBYTE,
        "hardware_compatible": options.hardware_compatible,
        "timing_cache_path": timing_cache,
        "cache_built_engines": False,
        "reuse_cached_engines": False,
        "immutable_weights": True,
    }


def _first(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]
