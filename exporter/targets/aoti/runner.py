"""Run a package with PyTorch's own loader."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from exporter.errors import BundleError, TargetUnavailableError
from exporter.signature import Array, Inputs
from exporter.targets.aoti.machine import check_fits, check_gpu_fits
from exporter.targets.aoti.package import read_metadata
from exporter.targets.cuda_graph import recorded
from exporter.targets.runner import Runner

if TYPE_CHECKING:
    from exporter.targets.aoti.gpu_call import GpuCall

MODEL = "model"
"""What AOTInductor calls the only model of a package."""

_NO_EXECUTION = "failed to map segment"
"""How the dynamic linker says that a file system is mounted `noexec`."""


@dataclass(kw_only=True)
class AotiRunner(Runner):
    """Calls a package; loading unpacks the library into a temporary folder, which goes with the runner.

    `device` is what the package was compiled for; `threads` are PyTorch's in this process.

    Attributes:
        cuda_graph: whether a package for the GPU, of a fixed batch, is called by replaying one recorded CUDA graph.
    """

    cuda_graph: bool = True
    _call: "GpuCall | None" = field(default=None, init=False, repr=False, compare=False)

    def close(self) -> None:
        """Let go of the package, of the recording and of their memory."""
        super().close()
        self._call = None

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_call": None}

    def enqueue(self, inputs: Inputs, *, cuda_graph: bool) -> Callable[[], object]:
        """See `Runner`."""
        import torch

        if self.device != "cuda":
            raise TargetUnavailableError(
                f"target aoti: {self.path.name} was compiled for the CPU, not for a GPU"
            )
        package = self.engine
        given = [torch.from_numpy(array).cuda() for array in self._one_batch(inputs).values()]

        def call() -> object:
            return package.boxed_run(list(given))

        return recorded(call) if cuda_graph or self._recording else call

    @property
    def _recording(self) -> bool:
        """A recording has one shape."""
        return self.cuda_graph and isinstance(self.signature.batch, int)

    def _run(self, engine: Any, batches: Sequence[Mapping[str, Array]]) -> Sequence[Sequence[Array]]:
        import torch

        with torch.inference_mode():
            if self.device == "cuda" and isinstance(self.signature.batch, int):
                return [self._run_prepared(engine, list(batch.values())) for batch in batches]
            answers = []
            for batch in batches:
                given = [torch.from_numpy(array).to(self.device) for array in batch.values()]
                results = engine.boxed_run(given)[: len(self.signature.outputs)]
                answers.append([result.cpu().numpy() for result in results])
            return answers

    def _run_prepared(self, engine: Any, batch: Sequence[Array]) -> Sequence[Array]:
        """One batch of the fixed size, on the GPU, through memory that is allocated once."""
        if self._call is None:
            from exporter.targets.aoti.gpu_call import prepare_call

            outputs = len(self.signature.outputs)
            self._call = prepare_call(engine, batch, outputs, cuda_graph=self.cuda_graph)
        return self._call(batch)

    def _open(self) -> Any:
        import torch

        metadata = read_metadata(self.path)
        check_fits(metadata, self.path.name, torch.__version__)
        self._check_device(metadata["AOTI_DEVICE_KEY"], metadata)
        if self.threads:
            torch.set_num_threads(self.threads)
        try:
            # What torch._inductor.aoti_load_package ends in. The rest of it compiles programs, to find out what
            # the CPU can do, and loads whatever else may be in the archive.
            alone = self.device == "cuda"  # a CUDA graph cannot record the locks between threads
            return torch._C._aoti.AOTIModelPackageLoader(str(self.path), MODEL, alone, 1, -1)
        except RuntimeError as error:
            if _NO_EXECUTION in str(error):
                raise TargetUnavailableError(
                    f"target aoti: the temporary folder {tempfile.gettempdir()} allows no execution, and "
                    f"{self.path.name} is unpacked there; set TMPDIR to a folder that allows it"
                ) from error
            raise BundleError(f"{self.path.name}: PyTorch cannot load it: {error}") from error

    def _check_device(self, made_for: str, metadata: dict[str, str]) -> None:
        import torch

        if made_for != self.device:
            raise TargetUnavailableError(
                f"target aoti: {self.path.name} was compiled for {made_for}, got device {self.device}; "
                f"use --engine-option aoti.device={made_for}, or export again"
            )
        if made_for == "cuda":
            if not torch.cuda.is_available():
                raise TargetUnavailableError(
                    f"target aoti: {self.path.name} was compiled for a GPU, and PyTorch {torch.__version__} sees none "
                    "here; export again with --engine-option aoti.device=cpu"
                )
            major, minor = torch.cuda.get_device_capability()
            check_gpu_fits(metadata, self.path.name, f"{major}{minor}")
