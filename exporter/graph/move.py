"""Put an exported program on a device.

In: an `ExportedProgram` on the CPU. Out: another one on the device. The given one stays as it is.
"""

import copy

import torch
from torch.export import ExportedProgram
from torch.export.passes import move_to_device_pass


def move(exported: ExportedProgram, device: str) -> ExportedProgram:
    """The same program on a device: parameters, constants, example inputs, and what the graph itself creates.

    A graph asserts the device of its tensors, and a tensor on a GPU says which one: `cuda:0`, never `cuda`. So the
    device that is written into the graph has its index.

    Args:
        exported: on the CPU; its parameters are shared where they are on the device already.
        device: `cpu`, `cuda` for the current GPU, or `cuda:N`.
    """
    graph_module = copy.deepcopy(exported.graph_module)
    own = ExportedProgram(
        root=graph_module,
        graph=graph_module.graph,
        graph_signature=exported.graph_signature,
        state_dict=dict(exported.state_dict),
        range_constraints=dict(exported.range_constraints),
        module_call_graph=exported.module_call_graph,
        example_inputs=exported.example_inputs,
        constants=dict(exported.constants),
        verifiers=exported.verifiers,
    )
    return move_to_device_pass(own, str(_indexed(torch.device(device))))


def _indexed(device: torch.device) -> torch.device:
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device
