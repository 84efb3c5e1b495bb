"""What a recipe may say about the OpenVINO target."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class OpenVinoOptions:
    """How OpenVINO stores and runs a model.

    Attributes:
        device: as OpenVINO calls it, such as CPU, GPU or GPU.0; nothing falls back to another one.
        precision_hint: what OpenVINO may compute everything in, matching included; null computes each value in the
            type that it has in the program.
        performance_hint: one call as fast as possible, or several batches of one call at the same time.
        threads: on the CPU; 0 for OpenVINO's choice.
        compress_weights: whether weights of 32 bits are stored in 16 (fp16) and widened when the model is loaded.
    """

    device: str = "CPU"
    precision_hint: Literal["f32", "bf16", "f16"] | None = None
    performance_hint: Literal["latency", "throughput"] = "latency"
    threads: int = 0
    compress_weights: bool = False
