"""Run OpenVINO's files with OpenVINO."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from exporter.errors import BundleError
from exporter.signature import Array, Inputs
from exporter.targets.openvino.engine import compile_model, reason
from exporter.targets.openvino.library import shared_core
from exporter.targets.openvino.options import OpenVinoOptions
from exporter.targets.openvino.profile import profile_blocks
from exporter.targets.runner import Runner

_BEGINNING = re.compile(rb"\s*<\?xml[^>]*>\s*<net\s")
_READ_BYTES = 1000


@dataclass(kw_only=True)
class OpenVinoRunner(Runner):
    """Calls a model, `model.xml` with `model.bin` in the same folder.

    Attributes:
        options: device and hints.
    """

    options: OpenVinoOptions

    def profile(self, inputs: Inputs, *, calls: int, folder: Path) -> Mapping[str, float]:
        """See `Runner`; by OpenVINO's own counters, in memory."""
        return profile_blocks(self._compile(timed=True), self._one_batch(inputs), calls)

    def runtime_model(self) -> Any:
        """What the device really runs, as OpenVINO reports it: nodes fused, laid out and typed."""
        return self.engine[0].get_compiled_model().get_runtime_model()

    def _run(self, engine: list[Any], batches: Sequence[Mapping[str, Array]]) -> Sequence[Sequence[Array]]:
        """As many batches are under way as the compiled model asks for: one, unless the hint is throughput.

        They are waited for in turn, so that no thread of OpenVINO's calls back into Python.
        """
        results = []
        for place, batch in enumerate(batches):
            request = engine[place % len(engine)]
            if place >= len(engine):
                results.append(self._wait(request))
            request.start_async(dict(batch))
        left = range(len(results), len(batches))
        return results + [self._wait(engine[place % len(engine)]) for place in left]

    def _wait(self, request: Any) -> list[Array]:
        request.wait()
        return [np.array(request.get_tensor(name).data) for name in self.signature.output_names]

    def _open(self) -> list[Any]:
        compiled = self._compile(timed=False)
        wanted = compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        return [compiled.create_infer_request() for _ in range(wanted)]

    def _compile(self, *, timed: bool) -> Any:
        core = shared_core()
        model = self._read(core)
        return compile_model(core, model, self.options, threads=self.threads or 0, timed=timed)

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
