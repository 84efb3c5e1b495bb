"""Run an ONNX model with ONNX Runtime, on the provider that the options name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from exporter.errors import TargetUnavailableError
from exporter.signature import Array, Inputs
from exporter.targets.onnx.attention_kernels import attention_kernels
from exporter.targets.onnx.options import OnnxOptions
from exporter.targets.onnx.profile import profile_blocks
from exporter.targets.onnx.providers import Stream
from exporter.targets.onnx.session import open_file, session_settings
from exporter.targets.runner import Runner


@dataclass(kw_only=True)
class OnnxRunner(Runner):
    """Calls a model through an ONNX Runtime session.

    ONNX Runtime's CPU provider has no bfloat16 arithmetic. There, and only there, a model in bfloat16 is widened when
    it is opened: every operator computes in fp32 and its result is rounded (`widen_bfloat16`). That shows what the
    model computes and says nothing about its speed.

    Attributes:
        options: the provider and its options; `device` follows from it.
    """

    options: OnnxOptions = field(default_factory=OnnxOptions)

    def __post_init__(self) -> None:
        self.device = self.options.device

    def enqueue(self, inputs: Inputs, *, cuda_graph: bool) -> Callable[[], object]:
        """See `Runner`; the session works on a stream of its own, in order with PyTorch's current one."""
        if self.device == "cpu":
            raise TargetUnavailableError(
                "target onnx: expected a provider on a GPU, got cpu; set onnx.provider to cuda or tensorrt"
            )
        from exporter.targets.onnx.on_device import on_device

        return on_device(self._new_session, self._one_batch(inputs), self.signature.outputs, cuda_graph)

    def attention_kernels(self, inputs: Inputs) -> dict[str, str]:
        """What every attention runs as, by node.

        The kernel of a fused one (FLASH_ATTENTION, MATH and so on) where ONNX Runtime says it, which its CUDA provider
        does; else the operator, or `products`, and the provider.

        Args:
            inputs: one batch.
        """
        settings, feed = self._settings(), self._one_batch(inputs)
        return attention_kernels(lambda: self._new_session(settings=settings), feed, settings)

    def profile(self, inputs: Inputs, *, calls: int, folder: Path) -> Mapping[str, float]:
        """See `Runner`; by ONNX Runtime's own profiler."""
        if self.device != "cpu":
            raise TargetUnavailableError(
                "target onnx: the time of blocks is read from ONNX Runtime's profiler, which sees the launches of a "
                "GPU and not its work; expected provider cpu"
            )
        settings, feed = self._settings(), self.signature.named(inputs)
        return profile_blocks(lambda: self._new_session(settings=settings), feed, settings, calls, folder)

    def _run(self, engine: Any, batches: Sequence[Mapping[str, Array]]) -> Sequence[Sequence[Array]]:
        return [engine.run(self.signature.output_names, dict(batch)) for batch in batches]

    def _open(self) -> Any:
        return self._new_session()

    def _settings(self) -> Any:
        return session_settings(threads=self.threads or 0, spinning=self.spinning)

    def _new_session(self, stream: Stream | None = None, settings: Any = None) -> Any:
        return open_file(
            self.path,
            settings or self._settings(),
            self.options,
            static=isinstance(self.signature.batch, int),
            stream=stream,
        )
