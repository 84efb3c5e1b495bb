"""From a serialised engine to one that runs: identity, loading, weights.

TensorRT says little about an engine that it will not load, so what is noted down beside it is compared first.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporter.errors import BundleError, TargetUnavailableError, UsageError
from exporter.targets.trt.device import Device
from exporter.targets.trt.files import ONNX, Identity, onnx_sha256, read_identity
from exporter.targets.trt.library import TENSORRT, Log, Product, start, version_numbers
from exporter.targets.trt.options import TrtOptions

_AMPERE = (8, 0)


@dataclass(frozen=True, kw_only=True)
class Engine:
    """A loaded engine, and what has to live as long as it does.

    Attributes:
        handle: TensorRT's `ICudaEngine`.
        runtime: that loaded it.
        log: where TensorRT reports to.
        library: the package.
        device: that it runs on.
    """

    handle: Any
    runtime: Any
    log: Log
    library: Any
    device: Device


def check_identity(identity: Identity, name: str, version: str, device: Device) -> None:
    """Is an engine for this TensorRT and this GPU?

    Args:
        identity: of the engine.
        name: of its file.
        version: of the TensorRT that is here.
        device: that is here.

    Raises:
        TargetUnavailableError: it is not.
    """
    options = identity.built_with
    _check_version(identity, name, version, compatible=options.version_compatible)
    _check_device(identity, name, device, options.hardware_compatibility)


def _check_version(identity: Identity, name: str, version: str, *, compatible: bool) -> None:
    built, here = version_numbers(identity.tensorrt), version_numbers(version)
    if here == built or (compatible and here > built):
        return
    expected = f"{identity.tensorrt} or later" if compatible else identity.tensorrt
    hint = "" if compatible else " (trt.version_compatible lets later versions run an engine)"
    raise TargetUnavailableError(
        f"{name}: built with another TensorRT: expected {expected}, got {version}; {TENSORRT.rebuild}{hint}"
    )


def _check_device(identity: Identity, name: str, device: Device, level: str) -> None:
    same_capability = identity.compute_capability == device.capability_text
    fits = {
        "none": same_capability and identity.device == device.name,
        "same_compute_capability": same_capability,
        "ampere_plus": device.capability >= _AMPERE,
    }[level]
    if fits:
        return
    expected = {
        "none": f"{identity.device} (compute capability {identity.compute_capability})",
        "same_compute_capability": f"compute capability {identity.compute_capability}",
        "ampere_plus": "compute capability 8.0 or newer",
    }[level]
    hint = " (trt.hardware_compatibility widens the choice)" if level == "none" else ""
    raise TargetUnavailableError(
        f"{name}: built for another GPU: expected {expected}, got {device.name} "
        f"(compute capability {device.capability_text}); {TENSORRT.rebuild}{hint}"
    )


def open_engine(trt: Any, path: Path, options: TrtOptions, device: Device) -> Engine:
    """Load an engine; a stripped one has its weights put back from the ONNX beside it.

    Args:
        trt: the package.
        path: of the engine.
        options: for `version_compatible`, which allows an engine's host code.
        device: to run it on.

    Raises:
        TargetUnavailableError: it was built for another TensorRT or another GPU.
        UsageError: it holds host code, and the options do not allow that.
        BundleError: it is missing or damaged, or the weights are not those that it was built with.
    """
    content = read_engine(path)
    identity = read_identity(path)
    check_identity(identity, path.name, trt.__version__, device)
    built = identity.built_with
    if built.version_compatible and not options.version_compatible:
        raise UsageError(
            f"{path.name}: a version-compatible engine holds host code; expected trt.version_compatible: true, "
            "which allows it, got false"
        )
    engine = load_engine(trt, content, path.name, device, host_code=options.version_compatible)
    if built.strip_plan:
        check_weights(path.with_name(ONNX), identity)
        refit(engine, path.with_name(ONNX))
    return engine


def read_engine(path: Path) -> bytes:
    """The bytes of an engine.

    Raises:
        BundleError: they cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path.name}: TensorRT's engine cannot be read: {error.strerror}") from error


def load_engine(
    trt: Any,
    content: bytes,
    name: str,
    device: Device,
    *,
    host_code: bool = False,
    product: Product = TENSORRT,
) -> Engine:
    """Hand the bytes of an engine to TensorRT.

    Args:
        trt: the package.
        content: the engine.
        name: of its file.
        device: to run it on.
        host_code: whether what it holds of that may be run.
        product: whose engine it is.

    Raises:
        TargetUnavailableError: TensorRT cannot start.
        BundleError: it does not take the engine.
    """
    log = Log(trt)
    runtime = start(trt.Runtime, log, product)
    if host_code:
        runtime.engine_host_code_allowed = True
    handle = runtime.deserialize_cuda_engine(content)
    if handle is None:
        raise BundleError(
            f"{name}: {product.title} {trt.__version__} cannot load it on {device.name}: "
            f"{log.reason('it does not say why')}; {product.rebuild}"
        )
    return Engine(handle=handle, runtime=runtime, log=log, library=trt, device=device)


def check_weights(path: Path, identity: Identity) -> None:
    """The ONNX that gives a stripped engine its weights has to be the one that it was built from.

    Raises:
        BundleError: it is missing, or another one.
    """
    if not path.exists():
        raise BundleError(
            f"{path.name}: expected beside the stripped engine, which has no weights without it"
        )
    if onnx_sha256(path) != identity.onnx_sha256:
        raise BundleError(f"{path.name}: expected the model that the engine was built from, got another one")


def refit(engine: Engine, path: Path) -> None:
    """Put the weights of an ONNX model into an engine that was stripped or built to be refitted.

    Raises:
        BundleError: TensorRT refuses them.
    """
    trt = engine.library
    refitter = trt.Refitter(engine.handle, engine.log.logger)
    parser = trt.OnnxParserRefitter(refitter, engine.log.logger)
    if not parser.refit_from_file(str(path)) or not refitter.refit_cuda_engine():
        said = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        missing = refitter.get_missing_weights()
        if missing:
            said.append(f"{len(missing)} weights are missing, {missing[0]} among them")
        reason = "; ".join(said) or engine.log.reason("it does not say why")
        raise BundleError(f"{path.name}: TensorRT does not put its weights into the engine: {reason}")
