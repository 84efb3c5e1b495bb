"""A loaded engine over torch tensors: shapes, addresses, the call, CUDA graphs.

The engine reads and writes the memory of torch's tensors, in the order of torch's current stream; nothing is copied
and nothing waits.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from exporter.errors import BundleError, TargetUnavailableError
from exporter.signature import Signature
from exporter.targets.trt import device
from exporter.targets.trt.engine import Engine, refit

_ALIGNMENT_BYTES = 256
"""What TensorRT demands of addresses; torch's allocations on a GPU keep it, slices of them may not."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """A call whose inputs and outputs lie where they lie; each overwrites the outputs of the one before.

    Attributes:
        start: enqueues it.
        inputs: what is read, by name.
        outputs: what is written, by name.
        context: of the call; has to live as long, like the tensors.
    """

    start: Callable[[], object]
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    context: Any

    def __call__(self) -> dict[str, Tensor]:
        """Enqueue it; the outputs by name."""
        self.start()
        return self.outputs


@dataclass(frozen=True, kw_only=True)
class Session:
    """An engine ready to run.

    Attributes:
        name: of its file, for messages.
        engine: the handle and what keeps it alive.
        dtypes: dtype of every output, by name.
        batches: smallest and largest batch of its profile.
        context: for `run`.
    """

    name: str
    engine: Engine
    dtypes: dict[str, torch.dtype]
    batches: tuple[int, int]
    context: Any

    def run(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Outputs by name for one batch that lies on the GPU."""
        given = {name: aligned(tensor) for name, tensor in inputs.items()}
        outputs = self.bind(self.context, given)
        self.enqueue(self.context)
        return outputs

    def prepare(self, inputs: Mapping[str, Tensor], *, cuda_graph: bool) -> Launch:
        """A call on one batch that lies on the GPU, with a context of its own, so that no other call gets in its way.

        Args:
            inputs: (B, ...) by name.
            cuda_graph: capture it, so that it is one launch instead of one per kernel.
        """
        given = {name: aligned(tensor) for name, tensor in inputs.items()}
        context = make_context(self.engine, self.name)
        outputs = self.bind(context, given)
        start: Callable[[], object] = partial(self.enqueue, context)
        if cuda_graph:
            start()  # the first call after a change of shape does work that cannot be captured
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                start()
            start = graph.replay
        return Launch(start=start, inputs=given, outputs=outputs, context=context)

    def bind(self, context: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tell a context where its inputs are and where its outputs go, which are allocated here."""
        for name, tensor in inputs.items():
            taken = context.set_input_shape(name, tuple(tensor.shape))
            self._demand(taken, f"refuses the shape of {name}")
        place = next(iter(inputs.values())).device
        outputs = {
            name: torch.empty(tuple(context.get_tensor_shape(name)), dtype=dtype, device=place)
            for name, dtype in self.dtypes.items()
        }
        for name, tensor in {**inputs, **outputs}.items():
            self._demand(context.set_tensor_address(name, tensor.data_ptr()), f"refuses the memory of {name}")
        return outputs

    def enqueue(self, context: Any) -> None:
        """Launch on torch's current stream what was bound."""
        with device.launching() as stream:
            self._demand(context.execute_async_v3(stream), "stopped")

    def replace_weights(self, onnx: Path) -> None:
        """See `TrtRunner.refit`."""
        refit(self.engine, onnx)

    def _demand(self, done: bool, otherwise: str) -> None:
        if not done:
            reason = self.engine.log.reason("it does not say why")
            raise TargetUnavailableError(f"{self.name}: TensorRT {otherwise}: {reason}")


def open_session(engine: Engine, name: str, signature: Signature) -> Session:
    """Look at the tensors of a loaded engine.

    Args:
        engine: that was loaded.
        name: of its file.
        signature: its inputs, and the outputs to allocate.

    Raises:
        TargetUnavailableError: there is no memory for a context.
        BundleError: the engine has other inputs and outputs.
    """
    trt, handle = engine.library, engine.handle
    names = [handle.get_tensor_name(index) for index in range(handle.num_io_tensors)]
    inputs = [each for each in names if handle.get_tensor_mode(each) == trt.TensorIOMode.INPUT]
    wanted, outputs = [spec.name for spec in signature.inputs], signature.output_names
    if set(inputs) != set(wanted) or not set(outputs) < set(names):
        raise BundleError(
            f"{name}: expected input {', '.join(wanted)} and outputs {', '.join(outputs)}, "
            f"got an engine of {', '.join(names)}"
        )
    kinds = _dtypes(trt)
    return Session(
        name=name,
        engine=engine,
        dtypes={each: kinds[handle.get_tensor_dtype(each)] for each in _written(names, inputs, outputs)},
        batches=_batches(handle, wanted[0]),
        context=make_context(engine, name),
    )


def _written(names: Sequence[str], inputs: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """The outputs that need memory: those wanted, in their order, then whatever else the engine writes."""
    return [*wanted, *(name for name in names if name not in inputs and name not in wanted)]


def _batches(handle: Any, input: str) -> tuple[int, int]:
    """Smallest and largest batch; an engine of a static batch has one."""
    batch = handle.get_tensor_shape(input)[0]
    if batch != -1:
        return batch, batch
    smallest, _, largest = handle.get_tensor_profile_shape(input, 0)
    return smallest[0], largest[0]


def aligned(images: Tensor) -> Tensor:
    """Images as TensorRT can read them: dense, at an address that is a multiple of 256."""
    dense = images.contiguous()
    return dense if dense.data_ptr() % _ALIGNMENT_BYTES == 0 else dense.clone()


def make_context(engine: Engine, name: str) -> Any:
    """What an engine runs in: its scratch memory, and the shapes and addresses of one call.

    Raises:
        TargetUnavailableError: there is no memory for it.
    """
    context = engine.handle.create_execution_context()
    if context is None:
        raise TargetUnavailableError(
            f"{name}: TensorRT makes no execution context on {engine.device.name}: "
            f"{engine.log.reason('it does not say why')}; free some GPU memory"
        )
    return context


def _dtypes(trt: Any) -> dict[Any, torch.dtype]:
    return {
        trt.DataType.FLOAT: torch.float32,
        trt.DataType.HALF: torch.float16,
        trt.DataType.BF16: torch.bfloat16,
        trt.DataType.INT32: torch.int32,
        trt.DataType.INT64: torch.int64,
        trt.DataType.INT8: torch.int8,
        trt.DataType.UINT8: torch.uint8,
        trt.DataType.BOOL: torch.bool,
    }
