"""A TensorRT that records: the part of its Python API that `exporter.targets.trt` uses, and nothing else.

Types are enforced from the annotations, which are compared with the real bindings' signatures (`test_bindings`), and
so is the documented order of calls (`Disorder`). It builds nothing: an engine is its ONNX behind a header, run by
ONNX Runtime on the memory that the caller bound. What a builder accepts is tested on a real one (`test_build`).
"""

from __future__ import annotations

import enum
import json
from typing import Any

import onnx
import onnxruntime

from tests.unit.targets.trt.engine_content import ELEMENT_TYPES, Buffer, Dims, array_at, tensors
from tests.unit.targets.trt.recording import KINDS, Native, Setting, make, require, world

__version__ = world.version


class BuilderFlag(enum.IntEnum):
    REFIT = 2
    TF32 = 5
    VERSION_COMPATIBLE = 9
    STRIP_PLAN = 13
    REFIT_IDENTICAL = 14


class NetworkDefinitionCreationFlag(enum.IntEnum):
    STRONGLY_TYPED = 1


class HardwareCompatibilityLevel(enum.IntEnum):
    NONE = 0
    AMPERE_PLUS = 1
    SAME_COMPUTE_CAPABILITY = 2


class ProfilingVerbosity(enum.IntEnum):
    DETAILED = 2


class MemoryPoolType(enum.IntEnum):
    WORKSPACE = 0


class LayerInformationFormat(enum.IntEnum):
    JSON = 1


class TensorIOMode(enum.IntEnum):
    INPUT = 1
    OUTPUT = 2


class DataType(enum.IntEnum):
    FLOAT = 0
    HALF = 1
    INT8 = 2
    INT32 = 3
    BOOL = 4
    UINT8 = 5
    BF16 = 7
    INT64 = 8


class ILogger(Native):
    class Severity(enum.IntEnum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2

    def __init__(self) -> None:
        self._alive = True

    def log(self, severity: ILogger.Severity, msg: str) -> None:
        raise NotImplementedError


class IProgressMonitor(Native):
    def __init__(self) -> None:
        self._alive = True

    def phase_start(self, phase_name: str, parent_phase: str, num_steps: int) -> None:
        raise NotImplementedError

    def step_complete(self, phase_name: str, step: int) -> bool:
        raise NotImplementedError

    def phase_finish(self, phase_name: str) -> None:
        raise NotImplementedError


class IHostMemory(bytes):
    """Library memory; in Python, something that offers a buffer."""


class ITensor(Native):
    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self._shape)  # type: ignore[attr-defined]


class INetworkDefinition(Native):
    _model: bytes = b""

    @property
    def num_inputs(self) -> int:
        return len(tensors(self._model, "input"))

    def get_input(self, index: int) -> ITensor:
        return make(ITensor, shape=list(tensors(self._model, "input").values())[index][1])


class IOptimizationProfile(Native):
    _shapes: dict[str, list[tuple[int, ...]]]

    def set_shape(self, input: str, min: Dims, opt: Dims, max: Dims) -> None:
        self._shapes[input] = [tuple(each) for each in (min, opt, max)]


class ITimingCache(Native):
    _content: bytes

    def serialize(self) -> IHostMemory:
        return IHostMemory(self._content + b"+measured")


class IBuilderConfig(Native):
    _profiles: list[IOptimizationProfile]
    _cache: ITimingCache | None
    profiling_verbosity = Setting("ProfilingVerbosity")
    builder_optimization_level = Setting("int", 3)
    hardware_compatibility_level = Setting("HardwareCompatibilityLevel", HardwareCompatibilityLevel.NONE)
    progress_monitor = Setting("IProgressMonitor")

    def set_flag(self, flag: BuilderFlag) -> None:
        world.flags.add(flag.name)

    def clear_flag(self, flag: BuilderFlag) -> None:
        world.flags.discard(flag.name)

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        world.settings["workspace"] = pool_size

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: Buffer) -> ITimingCache:
        if serialized_timing_cache and world.cache_refused == "none":
            return None  # type: ignore[return-value]
        return make(ITimingCache, content=bytes(serialized_timing_cache))

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        require(not ignore_mismatch, "a cache of another GPU is taken without a check")
        if cache._content and world.cache_refused == "logged":
            self._logger.log(ILogger.Severity.ERROR, "4: The timing cache will not be used!")
        if cache._content and world.cache_refused == "false":
            return False
        self._cache = cache
        return True

    _logger: Any


def refuse_to_start(logger: ILogger) -> None:
    if world.start_error is not None:
        logger.log(ILogger.Severity.ERROR, world.start_error)
        raise TypeError("pybind11::init(): factory function returned nullptr")


class Builder(Native):
    def __init__(self, logger: ILogger) -> None:
        refuse_to_start(logger)
        self._logger = logger

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        typed = flags & 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED
        require(typed or world.version.startswith("11."), "a network of TensorRT 10 is not strongly typed")
        return make(INetworkDefinition, model=b"")

    def create_builder_config(self) -> IBuilderConfig:
        world.flags, world.settings = {"TF32"}, {}
        return make(IBuilderConfig, profiles=[], cache=None, logger=self._logger)

    def create_optimization_profile(self) -> IOptimizationProfile:
        return make(IOptimizationProfile, shapes={})

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> IHostMemory:
        if world.build_error is not None:
            self._logger.log(ILogger.Severity.ERROR, world.build_error)
            return None  # type: ignore[return-value]
        self._logger.log(ILogger.Severity.WARNING, "a warning")
        header = {
            "version": world.version,
            "capability": list(world.capability),
            "flags": sorted(world.flags),
            "detailed": config.profiling_verbosity == ProfilingVerbosity.DETAILED,
            "shapes": config._profiles[0]._shapes if config._profiles else {},
        }
        return IHostMemory(json.dumps(header).encode() + b"\n" + network._model)


class ParserError(Native):
    _error: tuple[int, str, str, str]

    def node(self) -> int:
        return self._error[0]

    def node_name(self) -> str:
        return self._error[1]

    def node_operator(self) -> str:
        return self._error[2]

    def desc(self) -> str:
        return self._error[3]


class OnnxParser(Native):
    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._network = network

    @property
    def num_errors(self) -> int:
        return len(world.parser_errors)

    def get_error(self, index: int) -> ParserError:
        return make(ParserError, error=world.parser_errors[index])

    def parse_from_file(self, model: str) -> bool:
        if world.parser_errors:
            return False
        self._network._model = onnx.load(model).SerializeToString()
        return True


class EngineInspector(Native):
    _detailed: bool

    def get_engine_information(self, format: LayerInformationFormat) -> str:
        require(self._detailed, "inspected without detailed profiling verbosity")
        return world.layers


class IExecutionContext(Native):
    _engine: ICudaEngine
    _shapes: dict[str, tuple[int, ...]]
    _addresses: dict[str, int]
    _warm = False

    def set_input_shape(self, name: str, shape: tuple) -> bool:  # type: ignore[type-arg]
        smallest, _, largest = self._engine.get_tensor_profile_shape(name, 0)
        self._warm = self._warm and self._shapes.get(name) == shape
        self._shapes[name] = shape
        return all(low <= axis <= high for low, axis, high in zip(smallest, shape, largest, strict=True))

    def get_tensor_shape(self, name: str) -> Dims:
        (input,) = tensors(self._engine._model, "input")
        require(input in self._shapes, "an output's shape is asked for before the input's is set")
        own = {**tensors(self._engine._model, "input"), **tensors(self._engine._model, "output")}[name][1]
        return tuple(self._shapes[input][0] if axis == -1 else axis for axis in own)

    def set_tensor_address(self, name: str, memory: int) -> bool:
        require(memory > 0, f"no memory for {name}")
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        require(not self._engine._stripped, "a stripped engine runs without its weights")
        inputs, outputs = (tensors(self._engine._model, kind) for kind in ("input", "output"))
        require(set(self._shapes) == set(inputs), "executed before the input's shape was set")
        require(set(self._addresses) == {*inputs, *outputs}, "executed before every tensor had its memory")
        world.handles.append(stream_handle)
        if world.captured is not None:
            require(self._warm, "the first call after a change of shape is captured")
            world.captured.append(self._run)
        else:
            self._run()
        self._warm = True
        return True

    def _run(self) -> None:
        inputs, outputs = (tensors(self._engine._model, kind) for kind in ("input", "output"))
        feed = {name: self._array(name, dtype).copy() for name, (dtype, _) in inputs.items()}
        results = self._engine._session.run(list(outputs), feed)
        for (name, (dtype, _)), result in zip(outputs.items(), results, strict=True):
            self._array(name, dtype)[...] = result

    def _array(self, name: str, dtype: str) -> Any:
        return array_at(self._addresses[name], self.get_tensor_shape(name), dtype)


class ICudaEngine(Native):
    _model: bytes
    _header: dict[str, Any]
    _stripped: bool
    _session: Any

    @property
    def num_io_tensors(self) -> int:
        return len(tensors(self._model, "input")) + len(tensors(self._model, "output"))

    def get_tensor_name(self, index: int) -> str:
        return [*tensors(self._model, "input"), *tensors(self._model, "output")][index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in tensors(self._model, "input") else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        both = {**tensors(self._model, "input"), **tensors(self._model, "output")}
        return DataType[ELEMENT_TYPES[both[name][0]]]

    def get_tensor_shape(self, name: str) -> Dims:
        return {**tensors(self._model, "input"), **tensors(self._model, "output")}[name][1]

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Dims]:
        shape = tensors(self._model, "input")[name][1]
        return [tuple(each) for each in self._header["shapes"].get(name, [shape] * 3)]

    def create_engine_inspector(self) -> EngineInspector:
        return make(EngineInspector, detailed=self._header["detailed"])

    def create_execution_context(self) -> IExecutionContext:
        if world.context_refused:
            return None  # type: ignore[return-value]
        return make(IExecutionContext, engine=self, shapes={}, addresses={})


class Runtime(Native):
    engine_host_code_allowed = Setting("bool", False)

    def __init__(self, logger: ILogger) -> None:
        refuse_to_start(logger)
        self._logger = logger

    def deserialize_cuda_engine(self, serialized_engine: Buffer) -> ICudaEngine:
        head, _, model = bytes(serialized_engine).partition(b"\n")
        try:
            header = json.loads(head)
            session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        except Exception:
            self._logger.log(ILogger.Severity.ERROR, "1: Serialization (magicTagRead == kMAGIC_TAG failed)")
            return None  # type: ignore[return-value]
        if "VERSION_COMPATIBLE" in header["flags"]:
            require(self.engine_host_code_allowed, "an engine with host code is loaded without leave")
        stripped = "STRIP_PLAN" in header["flags"]
        return make(ICudaEngine, model=model, header=header, stripped=stripped, session=session)


class Refitter(Native):
    _fed = False

    def __init__(self, engine: ICudaEngine, logger: ILogger) -> None:
        self._engine = engine

    def refit_cuda_engine(self) -> bool:
        require(self._fed, "refitted before any weights were read")
        self._engine._stripped = False
        return True

    def get_missing_weights(self) -> list[str]:
        return ["block_00/weight"]


class OnnxParserRefitter(Native):
    def __init__(self, refitter: Refitter, logger: ILogger) -> None:
        self._refitter = refitter

    @property
    def num_errors(self) -> int:
        return int(world.refit_error is not None)

    def get_error(self, index: int) -> ParserError:
        return make(ParserError, error=(0, "", "", world.refit_error))

    def refit_from_file(self, model: str) -> bool:
        flags = self._refitter._engine._header["flags"]
        require({"REFIT", "REFIT_IDENTICAL"} & set(flags), "an engine that cannot be refitted is refitted")
        if world.refit_error is not None:
            return False
        self._refitter._engine._session = onnxruntime.InferenceSession(
            model, providers=["CPUExecutionProvider"]
        )
        self._refitter._fed = True
        return True


KINDS.update({name: value for name, value in list(globals().items()) if isinstance(value, type)})
KINDS["ILogger.Severity"] = ILogger.Severity
