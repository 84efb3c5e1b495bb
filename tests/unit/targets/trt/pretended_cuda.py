"""A CUDA runtime whose GPU is ordinary memory: the part of `cuda.bindings.runtime` that the prepared script calls."""

import ctypes
import enum
from types import SimpleNamespace
from typing import Any


class cudaError_t(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorNoDevice = 100


class cudaMemcpyKind(enum.IntEnum):
    cudaMemcpyDefault = 4


class cudaStream_t:
    """Not an integer, but it has one."""

    def __int__(self) -> int:
        return 77


allocated: list[Any] = []

devices = [SimpleNamespace(name=b"NVIDIA H200", major=9, minor=0)]


def cudaGetErrorString(error: cudaError_t) -> tuple[Any, ...]:
    return cudaError_t.cudaSuccess, error.name.encode()


def cudaGetDeviceProperties(device: int) -> tuple[Any, ...]:
    if device >= len(devices):
        return cudaError_t.cudaErrorNoDevice, None
    return cudaError_t.cudaSuccess, devices[device]


def cudaStreamCreate() -> tuple[Any, ...]:
    return cudaError_t.cudaSuccess, cudaStream_t()


def cudaStreamSynchronize(stream: int) -> tuple[Any, ...]:
    return ((cudaError_t.cudaSuccess if stream == 77 else cudaError_t.cudaErrorInvalidValue),)


def cudaMalloc(size: int) -> tuple[Any, ...]:
    memory = ctypes.create_string_buffer(size)
    allocated.append(memory)
    return cudaError_t.cudaSuccess, ctypes.addressof(memory)


def cudaMemcpy(dst: int, src: int, count: int, kind: cudaMemcpyKind) -> tuple[Any, ...]:
    ctypes.memmove(dst, src, count)
    return (cudaError_t.cudaSuccess,)
