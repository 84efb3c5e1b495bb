"""Call a session on data that lies on the GPU: what a pipeline that keeps its tensors there sees.

torch's tensors are bound by their addresses, and the host does not wait: the work stands in torch's current stream like
that of any operator.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from exporter.signature import Array, TensorSpec
from exporter.targets.onnx.providers import Stream

_WARM_UP_CALLS = 3
"""Allocation, algorithm search, and the capture of the graph."""


def on_device(
    open_on: Callable[[Stream], Any],
    inputs: Mapping[str, Array],
    outputs: tuple[TensorSpec, ...],
    cuda_graph: bool,
) -> Callable[[], object]:
    """A call without arguments that enqueues one batch on torch's current stream.

    The session works on a stream of its own, since ONNX Runtime takes CUDA's default stream for none; events order it
    after what is in the current stream and before what comes. A binding knows addresses and keeps nothing alive: the
    call holds inputs and outputs, and torch is told that another stream uses them.

    Args:
        open_on: opens the session on a stream.
        inputs: one batch by name; copied to the GPU now.
        outputs: shapes and dtypes; a free batch axis is that of the inputs.
        cuda_graph: whether ONNX Runtime captures its launches and replays them.

    Returns:
        The call; it returns the output tensors, which the next one overwrites.
    """
    import torch
    from onnxruntime import RunOptions

    stream = torch.cuda.Stream()
    session = open_on(Stream(handle=stream.cuda_stream, device=stream.device_index, cuda_graph=cuda_graph))
    given = {name: torch.from_numpy(array).cuda() for name, array in inputs.items()}
    first = next(iter(given.values()))
    results = {
        spec.name: torch.empty(
            (len(first), *map(int, spec.shape[1:])), dtype=getattr(torch, spec.dtype), device=first.device
        )
        for spec in outputs
    }
    binding = session.io_binding()
    for name, tensor in given.items():
        bind(binding.bind_input, name, tensor)
    for name, tensor in results.items():
        bind(binding.bind_output, name, tensor)
    held = given | results
    for tensor in held.values():
        tensor.record_stream(stream)
    unwaiting = RunOptions()
    unwaiting.add_run_config_entry("disable_synchronize_execution_providers", "1")

    def call() -> object:
        current = torch.cuda.current_stream()
        stream.wait_stream(current)
        session.run_with_iobinding(binding, unwaiting)
        current.wait_stream(stream)
        return tuple(held[spec.name] for spec in outputs)

    for _ in range(_WARM_UP_CALLS):
        call()
    torch.cuda.synchronize()
    return call


def bind(bind_tensor: Callable[..., None], name: str, tensor: Any) -> None:
    """Bind a contiguous torch tensor by its address.

    Args:
        bind_tensor: an `IOBinding`'s `bind_input` or `bind_output`.
        name: of the model's input or output.
        tensor: stays where it is, as long as the binding lives.
    """
    bind_tensor(
        name=name,
        device_type=tensor.device.type,
        device_id=tensor.device.index or 0,
        element_type=np.dtype(str(tensor.dtype).removeprefix("torch.")).type,
        shape=tuple(tensor.shape),
        buffer_ptr=tensor.data_ptr(),
    )
