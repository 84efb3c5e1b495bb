"""What a recipe may say about the ONNX target."""

from dataclasses import dataclass
from typing import Literal

from exporter.local_path import LocalPath


@dataclass(frozen=True, kw_only=True)
class OnnxOptions:
    """How an ONNX model is quantised, and what ONNX Runtime runs it with.

    Attributes:
        provider: ONNX Runtime's execution provider; nothing falls back to another one.
        tf32: whether the CUDA provider may round the inputs of fp32 products to 10 bits, as TensorRT's does anyway.
        engine_cache: folder in which the TensorRT provider keeps the engines that it builds; None to keep none.
        activations: integers that activations become in int8: `uint8` with a zero point, which CPUs like best, or
            `int8` around zero, which TensorRT demands.
        opset: of the default domain, from 17 on, with the IR version that came with it; older servers refuse newer
            ones. None for the oldest that the operators, the precision and the form of attention are at home in.
    """

    provider: Literal["cpu", "cuda", "tensorrt"] = "cpu"
    tf32: bool = False
    engine_cache: LocalPath | None = None
    activations: Literal["uint8", "int8"] = "uint8"
    opset: int | None = None

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        """Where the provider computes."""
        return "cpu" if self.provider == "cpu" else "cuda"
