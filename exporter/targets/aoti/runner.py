"""Run a package with PyTorch's own loader: numpy in, numpy out."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from exporter.errors import BundleError, TargetUnavailableError
from exporter.targets.aoti.machine import check_fits, check_gpu_fits
from exporter.targets.aoti.package import read_metadata
from exporter.targets.batches import one_batch, run_in_batches
from exporter.targets.target import Array, TensorSpec

MODEL = "model"
"""What AOTInductor calls the only model of a package."""

_NO_EXECUTION = "failed to map segment"
"""How the dynamic linker says that a file system is mounted `noexec`."""


@dataclass(kw_only=True)
class AotiRunner:
    """Calls a package on any number of images, in batches of its static size.

    The last batch is padded by repeating its last row, and the padding is cut off again. The loaded package does not
    travel with a pickle; each process loads its own on first use. Loading unpacks the library into a temporary folder,
    which goes with the runner.

    Attributes:
        path: of the package.
        input: shape, dtype and name of the images.
        outputs: names to return, in the order of the package's results; further results are matches, left out.
        device: that the package was compiled for.
        threads: of PyTorch in this process, 0 for its choice; a CPU's.
    """

    path: Path
    input: TensorSpec
    outputs: tuple[TensorSpec, ...]
    device: Literal["cpu", "cuda"] = "cpu"
    threads: int = 0
    _package: Any = field(default=None, repr=False, compare=False)

    def __call__(self, images: Array) -> dict[str, Array]:
        """Outputs by name, one row per image.

        Raises:
            UsageError: images of another shape or dtype than the package takes, or none at all.
            BundleError: the package is damaged.
            TargetUnavailableError: it was compiled for another machine or PyTorch.
        """
        return run_in_batches(images, self.input, self.outputs, self._run)

    def load(self) -> None:
        """Load the package now, which the first call does otherwise.

        Raises:
            BundleError: the package is damaged.
            TargetUnavailableError: it was compiled for another machine or PyTorch.
        """
        self._open()

    def on_device(self, images: Array, cuda_graph: bool) -> Callable[[], object]:
        """One call on a batch that lies on the GPU, enqueued on PyTorch's current stream, without any waiting.

        Args:
            images: one batch; it is copied to the GPU now.
            cuda_graph: record the call once, and replay the recording.

        Raises:
            UsageError: not a batch of the package's.
            TargetUnavailableError: the package is a CPU's.
        """
        import torch

        if self.device != "cuda":
            raise TargetUnavailableError(
                f"target aoti: {self.path.name} was compiled for the CPU, not for a GPU"
            )
        package, given = self._open(), torch.from_numpy(one_batch(images, self.input)).cuda()

        def call() -> object:
            return package.boxed_run([given])

        return _recorded(call) if cuda_graph else call

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_package": None}

    def _run(self, images: Array) -> Sequence[Array]:
        import torch

        package = self._open()
        with torch.inference_mode():
            results = package.boxed_run([torch.from_numpy(images).to(self.device)])
        return [result.cpu().numpy() for result in results[: len(self.outputs)]]

    def _open(self) -> Any:
        if self._package is None:
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
                self._package = torch._C._aoti.AOTIModelPackageLoader(str(self.path), MODEL, alone, 1, -1)
            except RuntimeError as error:
                if _NO_EXECUTION in str(error):
                    raise TargetUnavailableError(
                        f"target aoti: the temporary folder {tempfile.gettempdir()} allows no execution, and "
                        f"{self.path.name} is unpacked there; set TMPDIR to a folder that allows it"
                    ) from error
                raise BundleError(f"{self.path.name}: PyTorch cannot load it: {error}") from error
        return self._package

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


def _recorded(call: Callable[[], object]) -> Callable[[], object]:
    """A CUDA graph of one call, warmed up on a stream of its own as CUDA demands."""
    import torch

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = call()  # the graph writes into these tensors: they have to live as long as it does

    def replay() -> object:
        graph.replay()
        return kept

    return replay
