"""Run an ONNX model with ONNX Runtime: numpy in, numpy out."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from exporter.errors import BundleError, UsageError
from exporter.targets.onnx.profile import profile_blocks
from exporter.targets.target import Array, TensorSpec


@dataclass(kw_only=True)
class OnnxRunner:
    """Calls a model on any number of images, in batches of its static size.

    The last batch is padded by repeating its last row, and the padding is cut off again. Sessions do not travel with
    a pickle; each process opens its own on first use.

    Attributes:
        path: of the model.
        input: shape, dtype and name of the images.
        outputs: names to return, in order.
        threads: intra-op threads, 0 for ONNX Runtime's choice.
        spinning: whether idle threads spin, which is fastest alone on a machine and slowest beside another pool.
    """

    path: Path
    input: TensorSpec
    outputs: tuple[TensorSpec, ...]
    threads: int = 0
    spinning: bool = True
    _session: Any = field(default=None, repr=False, compare=False)

    def __call__(self, images: Array) -> dict[str, Array]:
        """Outputs by name, one row per image.

        Raises:
            UsageError: images of another shape or dtype than the model takes, or none at all.
            BundleError: ONNX Runtime cannot load the model.
        """
        self._check(images)
        batch = self.input.shape[0]
        size = len(images) if isinstance(batch, str) else batch
        parts = [self._run(images[start : start + size], size) for start in range(0, len(images), size)]
        return {
            spec.name: np.concatenate([part[place] for part in parts])
            for place, spec in enumerate(self.outputs)
        }

    def load(self) -> None:
        """Open the session now, which the first call does otherwise.

        Raises:
            BundleError: ONNX Runtime cannot load the model.
        """
        self._open()

    def profile_blocks(self, images: Array, calls: int, folder: Path) -> dict[str, float]:
        """Milliseconds of one call by block: `stem`, `block_00` and so on, `head`.

        Args:
            images: one batch.
            calls: to take the median over.
            folder: for the profiler's file, which does not stay.
        """
        options = session_options(threads=self.threads, spinning=self.spinning)
        return profile_blocks(self.path, {self.input.name: images}, options, calls, folder)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_session": None}

    def _run(self, images: Array, size: int) -> list[Array]:
        missing = size - len(images)
        full = np.concatenate([images, np.repeat(images[-1:], missing, axis=0)]) if missing else images
        names = [spec.name for spec in self.outputs]
        results = self._open().run(names, {self.input.name: np.ascontiguousarray(full)})
        return [result[: len(images)] for result in results]

    def _open(self) -> Any:
        if self._session is None:
            import onnxruntime

            options = session_options(threads=self.threads, spinning=self.spinning)
            try:
                self._session = onnxruntime.InferenceSession(
                    str(self.path), options, providers=["CPUExecutionProvider"]
                )
            except Exception as error:  # onnxruntime's own types derive from Exception only
                raise BundleError(f"{self.path.name}: ONNX Runtime cannot load it: {error}") from error
        return self._session

    def _check(self, images: Array) -> None:
        expected = self.input.shape[1:]
        if images.ndim != len(expected) + 1 or images.shape[1:] != expected or len(images) == 0:
            shape = "x".join(map(str, expected))
            raise UsageError(
                f"{self.input.name}: expected at least one row of {shape}, got an array {images.shape}"
            )
        if images.dtype != np.dtype(self.input.dtype):
            raise UsageError(f"{self.input.name}: expected {self.input.dtype}, got {images.dtype}")


def session_options(*, threads: int, spinning: bool) -> Any:
    """ONNX Runtime's options; see `OnnxRunner` for the arguments."""
    import onnxruntime

    onnxruntime.disable_telemetry_events()  # where someone else imported it before this package could say so
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
    return options
