"""From an ONNX file to a serialised engine, by TensorRT's Python builder.

In: a model on disk and a `BuildRequest`. Out: a `Built`. The order is the documented one: network, parser, profile,
configuration, timing cache, build. Networks are strongly typed: what computes in 16 bits is written in the ONNX, and
TensorRT decides on kernels only.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporter.errors import InternalError, TargetUnavailableError, UnsupportedGraphError, UsageError
from exporter.targets.target import Progress
from exporter.targets.trt import timing_cache
from exporter.targets.trt.device import Device
from exporter.targets.trt.library import TENSORRT, Log, Product, start, version_numbers
from exporter.targets.trt.options import TrtOptions
from exporter.targets.trt.progress import PhaseTree, monitor

_MOST_ERRORS = 8
"""Nodes that a message names."""

_OLDEST_CAPABILITY = {"ampere_plus": (8, 0), "same_compute_capability": (7, 5)}
"""Ampere and Turing, by TensorRT's documentation of HardwareCompatibilityLevel."""


def configure(trt: Any, config: Any, options: TrtOptions) -> None:
    """Apply TensorRT's options to a builder's configuration."""
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # the inspector needs it
    config.builder_optimization_level = options.builder_level
    if options.workspace_mb is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mb << 20)
    if not options.tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    for flag in _flags(trt, options):
        config.set_flag(flag)
    level = trt.HardwareCompatibilityLevel
    config.hardware_compatibility_level = {
        "none": level.NONE,
        "ampere_plus": level.AMPERE_PLUS,
        "same_compute_capability": level.SAME_COMPUTE_CAPABILITY,
    }[options.hardware_compatibility]


@dataclass(frozen=True, kw_only=True)
class BuildRequest:
    """What is built, beside the model.

    Attributes:
        inputs: names of the model's inputs.
        options: of the target, a `BatchRange` with more.
        device: built on, or for.
        cache: what the timing cache holds; empty for a new one; None where the product has none.
        cache_file: that it was read from, if there is one.
        progress: told how far it is.
        product: that builds.
        configure: applies the options to a builder's configuration.
    """

    inputs: tuple[str, ...]
    options: Any
    device: Device
    cache: bytes | None = b""
    cache_file: str | None = None
    progress: Progress | None = None
    product: Product = TENSORRT
    configure: Callable[[Any, Any, Any], None] = configure


@dataclass(frozen=True, kw_only=True)
class Built:
    """A finished engine.

    Attributes:
        plan: the serialised engine; TensorRT's own memory, to be written without a copy.
        cache: the timing cache, serialised, with what this build measured.
        warnings: of TensorRT, in order.
    """

    plan: Any
    cache: bytes
    warnings: tuple[str, ...]


def check_options(options: TrtOptions, batch: int | str, device: Device) -> None:
    """Refuse what cannot be built, before any work is done.

    Args:
        options: asked for.
        batch: of the program; a word for a free one.
        device: to build on.

    Raises:
        UsageError: the profile and the batch exclude each other, or the hardware compatibility asked for begins with
            a newer GPU.
    """
    options.check_batch(batch)
    oldest = _OLDEST_CAPABILITY.get(options.hardware_compatibility)
    if oldest is not None and device.capability < oldest:
        raise UsageError(
            f"trt.hardware_compatibility: {options.hardware_compatibility} is built on GPUs of compute capability "
            f"{'.'.join(map(str, oldest))} or newer, got {device.name} with {device.capability_text}; expected none"
        )


def build_plan(trt: Any, path: Path, request: BuildRequest) -> Built:
    """Parse, configure, build.

    Args:
        trt: the package.
        path: of the ONNX model; weights that lie beside it are found from there.
        request: the rest.

    Raises:
        UnsupportedGraphError: TensorRT's parser does not take the model; every node that it complains about is named.
        UsageError: TensorRT refuses the profile or the timing cache.
        TargetUnavailableError: TensorRT cannot start, or finds no engine for this network on this GPU.
    """
    log, product = Log(trt), request.product
    builder = start(trt.Builder, log, product)
    network = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(network, log.logger)
    if not parser.parse_from_file(str(path)):
        raise UnsupportedGraphError(
            f"target {product.target}: {product.title}'s parser refuses {path.name}: {_errors(parser, log)}"
        )
    config = builder.create_builder_config()
    request.configure(trt, config, request.options)
    _add_profile(builder, network, config, request)
    cache = _cache(trt, config, request, log)
    tree = PhaseTree(request.progress or _ignore)
    watching = monitor(trt, tree)
    config.progress_monitor = watching
    plan = builder.build_serialized_network(network, config)
    if tree.interrupted is not None:
        raise tree.interrupted
    if plan is None:
        raise TargetUnavailableError(
            f"target {product.target}: {product.title} {trt.__version__} builds no engine on {request.device.name}: "
            f"{log.reason('it does not say why')}; {product.remedy}"
        )
    measured = b"" if cache is None else bytes(cache.serialize())
    return Built(plan=plan, cache=measured, warnings=tuple(log.warnings))


def _network_flags(trt: Any) -> int:
    """Strong typing, which has been the only kind since 11."""
    if version_numbers(trt.__version__) >= (11,):
        return 0
    return int(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))


def _cache(trt: Any, config: Any, request: BuildRequest, log: Log) -> Any:
    """The timing cache, which has to live until the engine is built."""
    if request.cache is None:
        return None
    source = request.cache_file or "the cache of the first build"
    return timing_cache.attach(trt, config, request.cache, log, request.device, source)


def _flags(trt: Any, options: TrtOptions) -> Iterator[Any]:
    if options.version_compatible:
        yield trt.BuilderFlag.VERSION_COMPATIBLE
    if options.strip_plan:
        yield trt.BuilderFlag.STRIP_PLAN
    if options.refit:
        yield trt.BuilderFlag.REFIT
    elif options.strip_plan:
        yield trt.BuilderFlag.REFIT_IDENTICAL


def _add_profile(builder: Any, network: Any, config: Any, request: BuildRequest) -> None:
    """The range of batches; a network without a free axis needs none (`check_options`)."""
    if network.num_inputs != len(request.inputs):
        raise InternalError(
            f"TensorRT sees {network.num_inputs} inputs in the ONNX, expected {len(request.inputs)}"
        )
    found = [network.get_input(place) for place in range(network.num_inputs)]
    shapes = {name: tuple(each.shape) for name, each in zip(request.inputs, found, strict=True)}
    asked = request.options.profile
    if asked is None or all(-1 not in shape for shape in shapes.values()):
        return
    profile = builder.create_optimization_profile()
    for name, shape in shapes.items():
        profile.set_shape(name, *((batch, *shape[1:]) for batch in asked))
    if config.add_optimization_profile(profile) < 0:
        raise UsageError(f"{request.options.all_three}: {request.product.title} refuses the profile {asked}")


def _errors(parser: Any, log: Log) -> str:
    """What the parser complains about, node by node."""
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    lines = [
        f"node {error.node()} {error.node_name() or '(no name)'} ({error.node_operator() or 'no operator'}): "
        f"{_reason(error.desc())}"
        for error in errors[:_MOST_ERRORS]
    ]
    if len(errors) > _MOST_ERRORS:
        lines.append(f"and {len(errors) - _MOST_ERRORS} more")
    return "; ".join(lines) or log.reason("it does not say why")


def _reason(text: str) -> str:
    """Without the line that TensorRT for RTX adds where there is no GPU, which its parser does without."""
    return "\n".join(line for line in text.splitlines() if "catchCudaError" not in line)


def _ignore(done: int, parts: int) -> None:
    """Where no one wants to know."""
