"""Run a saved program of TensorRT engines: numpy in, numpy out, on the GPU in between."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from exporter.errors import BundleError
from exporter.targets.batches import one_batch, run_in_batches
from exporter.targets.target import Array, TensorSpec


@dataclass(kw_only=True)
class TorchTrtRunner:
    """Calls the engines on any number of images, in batches of their static size.

    The last batch is padded by repeating its last row, and the padding is cut off again. The loaded program does not
    travel with a pickle; each process loads its own on first use.

    Attributes:
        path: of the saved program.
        input: shape, dtype and name of the images.
        outputs: names to return, in the order of the program's results; further results are matches, left out.
        cuda_graph: whether Torch-TensorRT records each engine's kernels once, and replays the recording.
        device: where it runs: a GPU, but for a library that only stands in.
    """

    path: Path
    input: TensorSpec
    outputs: tuple[TensorSpec, ...]
    cuda_graph: bool = False
    device: Literal["cpu", "cuda"] = "cuda"
    _module: Any = field(default=None, repr=False, compare=False)

    def __call__(self, images: Array) -> dict[str, Array]:
        """Outputs by name, one row per image.

        Raises:
            UsageError: images of another shape or dtype than the engines take, or none at all.
            BundleError: the file is damaged, or holds what could run as Python.
            TargetUnavailableError: no Torch-TensorRT or GPU here, or others than those it was built for.
        """
        return run_in_batches(images, self.input, self.outputs, self._run)

    def load(self) -> None:
        """Load the engines now, which the first call does otherwise.

        Raises:
            BundleError: the file is damaged, or holds what could run as Python.
            TargetUnavailableError: no Torch-TensorRT or GPU here, or others than those it was built for.
        """
        self._open()

    def on_device(self, images: Array, cuda_graph: bool) -> Callable[[], object]:
        """One call on a batch that lies on the GPU, enqueued on PyTorch's current stream.

        Args:
            images: one batch; it is copied to the GPU now.
            cuda_graph: replay a recording of the engine's kernels. Torch-TensorRT keeps that switch per process: it
                stays as it is set here.

        Raises:
            UsageError: not a batch of the engine's.
        """
        import torch

        given = torch.from_numpy(one_batch(images, self.input)).to(self.device)
        module = self._open()
        if cuda_graph and not self.cuda_graph:
            module = _recording(module, ExitStack())

        def call() -> object:
            with torch.no_grad():
                return module(given)

        return call

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_module": None}

    def _run(self, images: Array) -> Sequence[Array]:
        import torch

        module = self._open()
        with torch.no_grad():
            results = module(torch.from_numpy(images).to(self.device))
        return [result.cpu().numpy() for result in results[: len(self.outputs)]]

    def _open(self) -> Any:
        if self._module is None:
            module = load_program(self.path).module()
            self._module = _recording(module, ExitStack()) if self.cuda_graph else module
        return self._module


def load_program(path: Path) -> Any:
    """Vet and load a saved program.

    Raises:
        BundleError: it is damaged, or holds what could run as Python.
        TargetUnavailableError: no Torch-TensorRT or GPU here, or others than those it was built for.
    """
    from torch.export import ExportedProgram

    from exporter.models.quiet import quiet
    from exporter.targets.torch_trt.archive import check_fits, read_about
    from exporter.targets.torch_trt.library import load_library, versions

    about = read_about(path)
    library = load_library()
    check_fits(about, path.name, versions(library))
    try:
        with quiet():
            program = library.load(str(path))
    except Exception as error:  # torch.export, TensorRT and their C++ have no common error type
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise BundleError(f"{path.name}: Torch-TensorRT cannot load it: {lines[0][:300]}") from error
    if not isinstance(program, ExportedProgram):
        raise BundleError(f"{path.name}: expected a saved program, got {type(program).__name__}")
    program._guards_code = []  # Python source, which `module()` would compile and run
    return program


def _recording(module: Any, stack: ExitStack) -> Any:
    from exporter.targets.torch_trt.library import load_library

    return stack.enter_context(load_library().runtime.enable_cudagraphs(module))
