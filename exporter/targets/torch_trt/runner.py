"""Run a saved program of TensorRT engines, on the GPU."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporter.errors import BundleError
from exporter.signature import Array, Inputs
from exporter.targets.runner import Device, Runner


@dataclass(kw_only=True)
class TorchTrtRunner(Runner):
    """Calls a saved program of engines.

    Attributes:
        cuda_graph: whether Torch-TensorRT records each engine's kernels once, and replays the recording.
    """

    device: Device = "cuda"
    threads: int | None = None
    cuda_graph: bool = False

    def enqueue(self, inputs: Inputs, *, cuda_graph: bool) -> Callable[[], object]:
        """See `Runner`; Torch-TensorRT keeps the switch for recordings per process: it stays as it is set here."""
        import torch

        given = [torch.from_numpy(array).to(self.device) for array in self._one_batch(inputs).values()]
        module = self.engine
        if cuda_graph and not self.cuda_graph:
            module = _recording(module, ExitStack())

        def call() -> object:
            with torch.no_grad():
                return module(*given)

        return call

    def _run(self, engine: Any, batches: Sequence[Mapping[str, Array]]) -> Sequence[Sequence[Array]]:
        import torch

        answers = []
        with torch.no_grad():
            for batch in batches:
                results = engine(*(torch.from_numpy(array).to(self.device) for array in batch.values()))
                answers.append([each.cpu().numpy() for each in results[: len(self.signature.outputs)]])
        return answers

    def _open(self) -> Any:
        module = load_program(self.path).module()
        return _recording(module, ExitStack()) if self.cuda_graph else module


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
