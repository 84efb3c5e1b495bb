"""What OpenVINO made of a model: did attention become one kernel?"""

from typing import Any


def attention_kernels(model: Any, runtime_model: Any) -> tuple[int, int]:
    """How many attentions run as one kernel, and how many there are.

    An attention is a softmax between two products. A kernel of the runtime model says which nodes it stands for.

    Args:
        model: as it was written.
        runtime_model: what a device made of it.
    """
    types = {node.get_friendly_name(): node.get_type_name() for node in model.get_ops()}
    softmaxes = [node for node in model.get_ops() if node.get_type_name() == "Softmax" and _weighs(node)]
    fused = 0
    for kernel in runtime_model.get_ops():
        info = kernel.get_rt_info()
        origins = info["originalLayersNames"].astype(str).split(",") if "originalLayersNames" in info else []
        kinds = [types.get(origin, "") for origin in origins]
        fused += "Softmax" in kinds and kinds.count("MatMul") >= 2
    return fused, len(softmaxes)


def _weighs(value: Any) -> bool:
    """Whether a product reads it, cast or not; a classifier's own softmax is no attention."""
    readers = [reader.get_node() for reader in value.output(0).get_target_inputs()]
    return any(
        reader.get_type_name() == "MatMul" or (reader.get_type_name() == "Convert" and _weighs(reader))
        for reader in readers
    )
