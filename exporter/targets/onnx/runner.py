"""Run an ONNX model with ONNX Runtime: numpy in, numpy out, on the provider that the options name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from exporter.errors import TargetUnavailableError
from exporter.targets.batches import one_batch, run_in_batches
from exporter.targets.onnx.attention_kernels import attention_kernels
from exporter.targets.onnx.options import OnnxOptions
from exporter.targets.onnx.profile import profile_blocks
from exporter.targets.onnx.providers import Stream
from exporter.targets.onnx.session import open_file, session_settings
from exporter.targets.target import Array, TensorSpec


@dataclass(kw_only=True)
class OnnxRunner:
    """Calls a model on any number of images, in batches of its static size.

    The last batch is padded by repeating its last row, and the padding is cut off again. Sessions do not travel with
    a pickle; each process opens its own on first use.

    ONNX Runtime's CPU provider has no bfloat16 arithmetic. There, and only there, a model in bfloat16 is widened when
    it is opened: every operator computes in fp32 and its result is rounded (`widen_bfloat16`). That proves what the
    model computes and says nothing about its speed.

    Attributes:
        path: of the model.
        input: shape, dtype and name of the images.
        outputs: names to return, in order.
        options: the provider, and what it is told.
        threads: intra-op threads, 0 for ONNX Runtime's choice.
        spinning: whether idle threads spin, which is fastest alone on a machine and slowest beside another pool.
    """

    path: Path
    input: TensorSpec
    outputs: tuple[TensorSpec, ...]
    options: OnnxOptions = field(default_factory=OnnxOptions)
    threads: int = 0
    spinning: bool = True
    _session: Any = field(default=None, repr=False, compare=False)

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        """Where it computes."""
        return "cpu" if self.options.provider == "cpu" else "cuda"

    def __call__(self, images: Array) -> dict[str, Array]:
        """Outputs by name, one row per image.

        Raises:
            UsageError: images of another shape or dtype than the model takes, or none at all.
            TargetUnavailableError: the provider cannot run the model here.
            BundleError: ONNX Runtime cannot load the model.
        """
        return run_in_batches(images, self.input, self.outputs, self._run)

    def load(self) -> None:
        """Open the session now, which the first call does otherwise.

        Raises:
            TargetUnavailableError: the provider cannot run the model here.
            BundleError: ONNX Runtime cannot load the model.
        """
        self._open()

    def on_device(self, images: Array, cuda_graph: bool) -> Callable[[], object]:
        """One call on a batch that lies on the GPU, enqueued on torch's current stream, without any waiting.

        Args:
            images: one batch; it is copied to the GPU now.
            cuda_graph: whether ONNX Runtime replays its launches as one graph.

        Raises:
            UsageError: not a batch of the model's.
            TargetUnavailableError: the provider is the CPU's, or cannot run the model here.
        """
        if self.device == "cpu":
            raise TargetUnavailableError(
                "target onnx: expected a provider on a GPU, got cpu; set onnx.provider to cuda or tensorrt"
            )
        from exporter.targets.onnx.on_device import on_device

        given = one_batch(images, self.input)
        return on_device(self._new_session, given, self.outputs, cuda_graph)

    def attention_kernels(self, images: Array) -> dict[str, str]:
        """The kernel that ONNX Runtime chose for every fused attention, by node: FLASH_ATTENTION, MATH and so on.

        Empty where it tells nothing: on other providers than CUDA, and for attention that is spelled as products.

        Args:
            images: one batch.
        """
        given = one_batch(images, self.input)
        return attention_kernels(self._new_session, {self.input.name: given})

    def profile_blocks(self, images: Array, calls: int, folder: Path) -> dict[str, float]:
        """Milliseconds of one call by block: `stem`, `block_00` and so on, `head`.

        Args:
            images: one batch.
            calls: to take the median over.
            folder: for the profiler's file, which does not stay.
        """
        if self.device != "cpu":
            raise TargetUnavailableError(
                "target onnx: the time of blocks is read from ONNX Runtime's profiler, which sees the launches of a "
                "GPU and not its work; expected provider cpu"
            )
        settings = session_settings(threads=self.threads, spinning=self.spinning)
        feed = {self.input.name: images}
        return profile_blocks(lambda: self._new_session(settings=settings), feed, settings, calls, folder)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_session": None}

    def _run(self, images: Array) -> Sequence[Array]:
        results: Sequence[Array] = self._open().run(
            [spec.name for spec in self.outputs], {self.input.name: images}
        )
        return results

    def _open(self) -> Any:
        if self._session is None:
            self._session = self._new_session()
        return self._session

    def _new_session(self, stream: Stream | None = None, settings: Any = None) -> Any:
        return open_file(
            self.path,
            settings or session_settings(threads=self.threads, spinning=self.spinning),
            self.options,
            static=isinstance(self.input.shape[0], int),
            stream=stream,
        )
