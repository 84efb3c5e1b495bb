"""Run an engine: numpy in and out through `Runner`, torch tensors in and out where they lie on the GPU already."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from exporter.errors import UsageError
from exporter.signature import Array, Inputs
from exporter.targets.runner import Device, Runner
from exporter.targets.trt.options import TrtOptions

if TYPE_CHECKING:
    from torch import Tensor

    from exporter.targets.trt.engine import Engine
    from exporter.targets.trt.session import Launch, Session


@dataclass(kw_only=True)
class EngineRunner(Runner):
    """Calls an engine of TensorRT or of TensorRT for RTX, in batches that its profile contains.

    Attributes:
        options: of the target, a `BatchRange`; `cuda_graph` is read here.
    """

    device: Device = "cuda"
    threads: int | None = None
    options: Any
    _graph: "Launch | None" = field(default=None, repr=False, compare=False)

    def close(self) -> None:
        """Let go of the engine, its recording and their memory."""
        super().close()
        self._graph = None

    def forward(self, inputs: "Tensor | Mapping[str, Tensor]") -> "dict[str, Tensor]":
        """Outputs by name for one batch that lies on the GPU, enqueued on torch's current stream.

        Args:
            inputs: (B, ...) for every input, with B in the engine's profile.

        Raises:
            UsageError: a batch outside of the profile, or other names, shapes or dtypes.
        """
        given = self.signature.named(inputs)
        session: Session = self.engine
        self._check_batch(len(next(iter(given.values()))), session.batches)
        if not self.options.cuda_graph:
            return session.run(given)
        shapes = {name: tensor.shape for name, tensor in given.items()}
        if self._graph is None or {name: each.shape for name, each in self._graph.inputs.items()} != shapes:
            self._graph = None  # only the latest is kept; this one's memory is free for the next
            copies = {name: tensor.clone() for name, tensor in given.items()}
            self._graph = session.prepare(copies, cuda_graph=True)
        for name, tensor in given.items():
            self._graph.inputs[name].copy_(tensor)
        return {name: output.clone() for name, output in self._graph().items()}

    def enqueue(self, inputs: Inputs, *, cuda_graph: bool) -> Callable[[], object]:
        """See `Runner`; any batch of the profile."""
        session: Session = self.engine
        given = self.signature.named(inputs)
        self._check_batch(len(next(iter(given.values()))), session.batches)
        launch = session.prepare(_placed(given, session), cuda_graph=cuda_graph)

        def call() -> object:
            written = launch()
            return tuple(written[name] for name in self.signature.output_names)

        return call

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_graph": None}

    def _batches(self) -> tuple[int, int]:
        batch = self.signature.batch
        batches: tuple[int, int] = self.engine.batches
        return (batch, batch) if isinstance(batch, int) else batches

    def _run(self, engine: "Session", batches: Sequence[Mapping[str, Array]]) -> Sequence[Sequence[Array]]:
        answers = []
        for batch in batches:
            written = self.forward(_placed(batch, engine))
            answers.append([written[name].cpu().numpy() for name in self.signature.output_names])
        return answers

    def _open(self) -> "Session":
        from exporter.targets.trt.session import open_session

        session = open_session(self._load_engine(), self.path.name, self.signature)
        if isinstance(self.signature.batch, int):
            self._check_batch(self.signature.batch, session.batches)
        return session

    @abstractmethod
    def _load_engine(self) -> "Engine":
        """The engine, on the GPU that is here."""

    def _check_batch(self, batch: int, batches: tuple[int, int]) -> None:
        smallest, largest = batches
        if not smallest <= batch <= largest:
            expected = str(largest) if smallest == largest else f"{smallest} to {largest}"
            raise UsageError(
                f"{self.path.name}: expected a batch of {expected}, which is the engine's profile, got {batch}; "
                f"build an engine whose {self.options.target}.min_batch and {self.options.target}.max_batch contain it"
            )


@dataclass(kw_only=True)
class TrtRunner(EngineRunner):
    """Calls an engine of TensorRT.

    Attributes:
        options: `version_compatible` is read here as well.
    """

    options: TrtOptions = field(default_factory=TrtOptions)

    def refit(self, onnx: Path) -> None:
        """Replace the weights by those of another model of the same graph; for engines built with `refit`.

        Raises:
            BundleError: TensorRT refuses them.
        """
        self.engine.replace_weights(onnx)

    def _load_engine(self) -> "Engine":
        from exporter.targets.trt import device
        from exporter.targets.trt.engine import open_engine
        from exporter.targets.trt.library import tensorrt

        return open_engine(tensorrt(), self.path, self.options, device.current_device())


def _placed(inputs: Mapping[str, Array], session: "Session") -> "dict[str, Tensor]":
    import torch

    return {
        name: torch.from_numpy(np.ascontiguousarray(array)).to(session.engine.device.place)
        for name, array in inputs.items()
    }
