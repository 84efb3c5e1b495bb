"""Run OpenVINO's files with OpenVINO: numpy in, numpy out."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from exporter.errors import BundleError
from exporter.targets.batches import join_results, split_images
from exporter.targets.openvino.engine import compile_model, reason
from exporter.targets.openvino.library import shared_core
from exporter.targets.openvino.options import OpenVinoOptions
from exporter.targets.openvino.profile import profile_blocks
from exporter.targets.target import Array, TensorSpec

_BEGINNING = re.compile(rb"\s*<\?xml[^>]*>\s*<net\s")
_READ_BYTES = 1000


@dataclass(kw_only=True)
class OpenVinoRunner:
    """Calls a model on any number of images, in batches of its static size.

    The last batch is padded by repeating its last row, and the padding is cut off again. The compiled model does not
    travel with a pickle; each process compiles its own on first use.

    Attributes:
        path: of `model.xml`; `model.bin` lies beside it.
        input: shape, dtype and name of the images.
        outputs: names to return, in order.
        options: device and hints.
        threads: on the CPU, 0 for OpenVINO's choice.
    """

    path: Path
    input: TensorSpec
    outputs: tuple[TensorSpec, ...]
    options: OpenVinoOptions
    threads: int = 0
    _requests: list[Any] | None = field(default=None, repr=False, compare=False)

    def __call__(self, images: Array) -> dict[str, Array]:
        """Outputs by name, one row per image.

        Raises:
            UsageError: images of another shape or dtype than the model takes, or none at all.
            BundleError: OpenVINO cannot read the files.
            TargetUnavailableError: the device is not here, or does not compute in the model's precision.
        """
        results = self._run(split_images(images, self.input))
        return join_results(results, self.outputs, len(images))

    def load(self) -> None:
        """Compile the model now, which the first call does otherwise.

        Raises:
            BundleError, TargetUnavailableError: as a call does.
        """
        self._open()

    def profile_blocks(self, images: Array, calls: int, folder: Path) -> dict[str, float]:
        """Milliseconds of one call by block: `stem`, `block_00` and so on, `head`.

        Args:
            images: one batch.
            calls: to take the median over.
            folder: not needed; OpenVINO's profile is in memory.
        """
        return profile_blocks(self._compile(timed=True), np.ascontiguousarray(images), calls)

    def runtime_model(self) -> Any:
        """What the device really runs, as OpenVINO tells it: nodes fused, laid out and typed."""
        return self._open()[0].get_compiled_model().get_runtime_model()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_requests": None}

    def _run(self, batches: Sequence[Array]) -> list[list[Array]]:
        """Results of every batch, in the order of the outputs.

        As many batches are under way as the compiled model asks for: one, unless the hint is throughput. They are
        waited for in turn, so that no thread of OpenVINO's calls back into Python.
        """
        requests = self._open()
        results = []
        for place, batch in enumerate(batches):
            request = requests[place % len(requests)]
            if place >= len(requests):
                results.append(self._wait(request))
            request.start_async({self.input.name: batch})
        left = range(len(results), len(batches))
        return results + [self._wait(requests[place % len(requests)]) for place in left]

    def _wait(self, request: Any) -> list[Array]:
        request.wait()
        return [np.array(request.get_tensor(spec.name).data) for spec in self.outputs]

    def _open(self) -> list[Any]:
        if self._requests is None:
            compiled = self._compile(timed=False)
            wanted = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
            self._requests = [compiled.create_infer_request() for _ in range(wanted)]
        return self._requests

    def _compile(self, *, timed: bool) -> Any:
        core = shared_core()
        model = self._read(core)
        return compile_model(core, model, self.options, threads=self.threads, timed=timed)

    def _read(self, core: Any) -> Any:
        try:
            with self.path.open("rb") as file:
                beginning = file.read(_READ_BYTES)
        except OSError as error:
            raise BundleError(f"{self.path.name}: cannot be read: {error.strerror}") from error
        if not _BEGINNING.match(
            beginning
        ):  # OpenVINO would try other makers' formats, with each one's complaints
            raise BundleError(f"{self.path.name}: expected OpenVINO's XML, got something else")
        try:
            return core.read_model(self.path)
        except RuntimeError as error:
            raise BundleError(f"{self.path.name}: OpenVINO cannot read it: {reason(error)}") from error
