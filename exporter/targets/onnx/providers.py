"""ONNX Runtime's execution providers: how a session on each one is opened, and the check that it is that one.

Left to itself, ONNX Runtime runs what a provider cannot, or a whole model whose provider does not load, on the CPU. A
session from here is on the provider that was asked for, from the first node to the last, or it is an error.
"""

import io
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporter.errors import BundleError, TargetUnavailableError
from exporter.targets.onnx.options import OnnxOptions

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
"""ONNX Runtime's names by ours."""

INDEX_ARITHMETIC = frozenset({
    "Add", "Cast", "Concat", "ConstantOfShape", "Div", "Equal", "Expand", "Gather", "Identity", "Mul", "Range",
    "Reshape", "Shape", "Slice", "Squeeze", "Sub", "Unsqueeze", "Where",
})  # fmt: skip
"""What the shapes of a model with a free batch axis are computed with, which providers leave to the CPU on purpose."""

_ON_THE_CPU = "explicitly disabled"
"""Of what ONNX Runtime says when nodes that a provider has no kernel for are not to run on the CPU."""


@dataclass(frozen=True, kw_only=True)
class Stream:
    """The CUDA stream that a session works on.

    Attributes:
        handle: of the stream, as an address.
        device: number of the GPU that it belongs to.
        cuda_graph: whether ONNX Runtime captures its launches once and replays them.
    """

    handle: int
    device: int
    cuda_graph: bool


def check_provider(options: OnnxOptions) -> None:
    """Raise unless this build of ONNX Runtime has the provider.

    Raises:
        TargetUnavailableError: it has not.
    """
    import onnxruntime

    available = onnxruntime.get_available_providers()
    if PROVIDERS[options.provider] not in available:
        raise TargetUnavailableError(
            f"target onnx: expected ONNX Runtime with {PROVIDERS[options.provider]}, got "
            f"{onnxruntime.__version__} with {', '.join(available)}; pip uninstall --yes onnxruntime && "
            "pip install onnxruntime-gpu"
        )


def open_session(
    model: Path | bytes, settings: Any, options: OnnxOptions, *, static: bool, stream: Stream | None = None
) -> Any:
    """A session of which every node runs on the provider.

    Args:
        model: a file, or a serialised model.
        settings: ONNX Runtime's session options.
        options: name the provider.
        static: whether the batch is fixed. If it is free, the arithmetic on shapes belongs on the CPU.
        stream: to work on; None for one of the session's own.

    Raises:
        TargetUnavailableError: the provider is not here, does not load, or has no kernel for a node.
        BundleError: ONNX Runtime cannot load the model.
    """
    import onnxruntime

    check_provider(options)
    wanted = PROVIDERS[options.provider]
    what = model.name if isinstance(model, Path) else "probe"
    if options.provider != "cpu":
        _load_libraries(onnxruntime)
        entry = "session.disable_cpu_ep_fallback" if static else "session.record_ep_graph_assignment_info"
        settings.add_session_config_entry(entry, "1")
    try:
        session = onnxruntime.InferenceSession(
            str(model) if isinstance(model, Path) else model,
            settings,
            providers=[(wanted, provider_options(options, _types(model, options), stream))],
            enable_fallback=0,  # onnxruntime's own, which prints and carries on with the CPU
        )
    except Exception as error:  # onnxruntime's own types derive from Exception only
        if _ON_THE_CPU in str(error):
            raise TargetUnavailableError(
                f"target onnx: {what}: {wanted} does not load here or has no kernel for every operator: {error}; "
                "see python -m exporter doctor, or set onnx.provider=cpu"
            ) from error
        if options.provider != "cpu" and isinstance(
            error, RuntimeError
        ):  # no type of its own: nothing of the model's
            raise TargetUnavailableError(_not_loaded(what, wanted, str(error))) from error
        raise BundleError(f"{what}: ONNX Runtime cannot load it: {error}") from error
    if session.get_providers()[0] != wanted:
        raise TargetUnavailableError(_not_loaded(what, wanted, ", ".join(session.get_providers())))
    if options.provider != "cpu" and not static:
        _check_assignment(session, what, wanted)
    return session


def _not_loaded(what: str, wanted: str, got: str) -> str:
    library = "TensorRT and CUDA libraries" if wanted == PROVIDERS["tensorrt"] else "CUDA and cuDNN libraries"
    return (
        f"target onnx: {what}: expected {wanted}, got {got}; it needs the {library} that it was built for: "
        'pip install "onnxruntime-gpu[cuda,cudnn]"'
        + (' "tensorrt-cu13<11"' if wanted == PROVIDERS["tensorrt"] else "")
    )


def _check_assignment(session: Any, what: str, wanted: str) -> None:
    """Raise if more than arithmetic on shapes was left to the CPU."""
    assignment = getattr(session, "get_provider_graph_assignment_info", None)
    if assignment is None:
        raise TargetUnavailableError(
            f"target onnx: {what}: this ONNX Runtime does not say what of a model with a free batch axis it leaves to "
            "the CPU; fix the batch, or pip install --upgrade onnxruntime-gpu"
        )
    strays = sorted(
        {
            node.op_type
            for part in assignment()
            if part.ep_name == PROVIDERS["cpu"]
            for node in part.get_nodes()
        }
        - INDEX_ARITHMETIC
    )
    if strays:
        raise TargetUnavailableError(
            f"target onnx: {what}: {wanted} has no kernel for {', '.join(strays)}, which would run on the CPU; "
            "set onnx.provider=cpu"
        )


def provider_options(
    options: OnnxOptions, types: frozenset[str] = frozenset(), stream: Stream | None = None
) -> dict[str, str]:
    """Options of ONNX Runtime's provider.

    Args:
        options: name the provider.
        types: of the model's weights: TensorRT 10 has to be allowed each of the narrow ones. It may then compute in
            them what the model computes in fp32; the target `trt` does not allow it that.
        stream: to work on; None for one of the session's own.
    """
    if options.provider == "cpu":
        return {}
    graph = "enable_cuda_graph" if options.provider == "cuda" else "trt_cuda_graph_enable"
    streamed = {} if stream is None else {
        "device_id": str(stream.device),
        "user_compute_stream": str(stream.handle),
        graph: str(int(stream.cuda_graph)),
    }  # fmt: skip
    if options.provider == "cuda":
        return {"use_tf32": str(int(options.tf32)), **streamed}
    narrow = {"FLOAT16": "trt_fp16_enable", "BFLOAT16": "trt_bf16_enable", "INT8": "trt_int8_enable"}
    cached = {} if options.engine_cache is None else {
        "trt_engine_cache_enable": "1", "trt_engine_cache_path": options.engine_cache
    }  # fmt: skip
    return {**{flag: "1" for name, flag in narrow.items() if name in types}, **cached, **streamed}


def _types(model: Path | bytes, options: OnnxOptions) -> frozenset[str]:
    """Names of the types of the weights, where the provider has to be told."""
    if options.provider != "tensorrt":
        return frozenset()
    import onnx

    loaded = (
        onnx.load_model_from_string(model)
        if isinstance(model, bytes)
        else onnx.load(str(model), load_external_data=False)
    )
    return frozenset(onnx.TensorProto.DataType.Name(each.data_type) for each in loaded.graph.initializer)


def _load_libraries(onnxruntime: Any) -> None:
    """Load CUDA and cuDNN from where PyTorch's own wheels have them, if they are there."""
    with redirect_stdout(io.StringIO()):  # it prints what it does not find, and so does the session
        onnxruntime.preload_dlls()
