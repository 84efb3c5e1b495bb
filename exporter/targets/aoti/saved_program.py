"""A program as `torch.export` saves it: written for another machine to compile, and run here in eager PyTorch."""

import importlib
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporter.errors import BundleError, ModelUnavailableError, UnsupportedGraphError
from exporter.signature import Array
from exporter.targets.runner import Runner

PROGRAM = "model_aoti_program.pt2"


@dataclass(kw_only=True)
class ProgramRunner(Runner):
    """Calls a saved program, operator by operator; `threads` are PyTorch's in this process."""

    def _run(self, engine: Any, batches: Sequence[Mapping[str, Array]]) -> Sequence[Sequence[Array]]:
        import torch

        with torch.inference_mode():
            answers = [engine(*map(torch.from_numpy, batch.values())) for batch in batches]
        return [[each.numpy() for each in results[: len(self.signature.outputs)]] for results in answers]

    def _open(self) -> Any:
        import torch

        from exporter.models.pt2.archive import read_program

        if self.threads:
            torch.set_num_threads(self.threads)
        try:
            if calls_kernels(self.path):
                importlib.import_module("exporter.kernels")  # registers the operators that the program calls
            program, _ = read_program(self.path)
        except (OSError, zipfile.BadZipFile, ModelUnavailableError, UnsupportedGraphError) as error:
            raise BundleError(
                f"{self.path.name}: expected a saved program, cannot read it: {error}"
            ) from error
        return program.module(check_guards=False)


def calls_kernels(path: Path) -> bool:
    """Whether a saved program calls operators of this package, which `import exporter.kernels` registers."""
    with zipfile.ZipFile(path) as archive:
        graphs = [archive.read(name) for name in archive.namelist() if name.endswith(".json")]
    return any(b"torch.ops.exporter." in graph for graph in graphs)
