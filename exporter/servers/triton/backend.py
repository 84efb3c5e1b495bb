"""Which of Triton's backends runs an engine, and what no backend of it runs.

Triton gathers requests into batches of any size up to the largest. Its own backends hand such a batch on as it is, and
an engine with a static batch refuses it: that one gets the python backend, whose `model.py` pads. So do engines that
need something around them: a decoder of images, a check of masks, settings that Triton's own backend does not have.
"""

from typing import Any, Literal

from exporter.bundle import Bundle
from exporter.errors import UsageError
from exporter.targets import find_target

Backend = Literal["python", "onnxruntime", "tensorrt"]
Accept = Literal["tensor", "jpeg"]

_PACKED = ("onnx", "openvino", "trt")


def choose_backend(bundle: Bundle, target: str, accept: Accept) -> Backend:
    """The backend for a target's engine.

    Args:
        bundle: that holds it.
        target: of the bundle.
        accept: whether requests hold the model's inputs, or image files.

    Raises:
        UsageError: Triton cannot run it, or not with what is asked for; the line says why.
    """
    where = str(bundle.path)
    if bundle.manifest.lengths is not None:
        lengths = ", ".join(map(str, bundle.manifest.lengths))
        raise UsageError(
            f"{where}: expected engines of one length, got {lengths}; export the bundle with one --length"
        )
    if target not in _PACKED:
        raise UsageError(
            f"{where}: expected --target {' or '.join(_PACKED)}, which Triton runs here, got {target}"
        )
    options = options_of(bundle, target)
    if accept == "jpeg":
        _check_images(bundle)
    takes_tensors_of_any_batch = isinstance(bundle.signature.batch, str) and accept == "tensor"
    if target == "trt":
        if not takes_tensors_of_any_batch:
            raise UsageError(
                f"{where}: Triton's tensorrt backend takes engines with a free batch, and tensors; export with "
                "--dynamic-batch and pack with --accept tensor, or pack --target onnx"
            )
        if options.strip_plan:
            raise UsageError(
                f"{where}: Triton needs the weights in the engine; build it without trt.strip_plan"
            )
        return "tensorrt"
    if target == "onnx":
        _check_onnx(bundle, options)
        on_cpu = find_target(target).device(options) == "cpu"
        if takes_tensors_of_any_batch and on_cpu and not bundle.signature.masks:
            return "onnxruntime"
    return "python"


def options_of(bundle: Bundle, target: str) -> Any:
    """The options that a target's engine was built with, or the target's defaults."""
    return bundle.engine_options(target) or find_target(target).options()


def _check_onnx(bundle: Bundle, options: Any) -> None:
    if options.provider == "tensorrt":
        raise UsageError(
            f"{bundle.path}: expected onnx.provider cpu or cuda, got tensorrt, which builds engines while a server "
            "starts; export with another one, or with --target trt --dynamic-batch"
        )
    if options.provider == "cpu" and bundle.manifest.artifacts["onnx"].precision == "bf16":
        raise UsageError(
            f"{bundle.path}: ONNX Runtime has no bfloat16 on a CPU; export with another --precision or target"
        )


def _check_images(bundle: Bundle) -> None:
    preprocess = bundle.preprocess()
    if preprocess is None:
        raise UsageError(
            f"{bundle.path}: --accept jpeg: expected a bundle that takes photos, got one that takes "
            f"{bundle.manifest.inputs[0].name}"
        )
    if preprocess.kernel == "torch":
        raise UsageError(
            f"{bundle.path}: --accept jpeg: this model's images are resized by torchvision, which a server would have "
            "to load for it; resize them in the client, and pack with --accept tensor"
        )
