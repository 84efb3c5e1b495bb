"""A program as `torch.export` saves it: written for another machine to compile, and run here in eager PyTorch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from exporter.errors import BundleError, ExportError
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
            program, _ = read_program(self.path)
        except ExportError as error:
            raise BundleError(str(error)) from error
        return program.module(check_guards=False)
