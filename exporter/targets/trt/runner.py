"""Run an engine: numpy in and out for everybody, torch tensors in and out for who has them on the GPU."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from exporter.errors import UsageError
from exporter.targets.batches import check_images, padded
from exporter.targets.target import Array, TensorSpec
from exporter.targets.trt.options import TrtOptions

if TYPE_CHECKING:
    from torch import Tensor

    from exporter.targets.trt.session import Launch, Session


@dataclass(kw_only=True)
class TrtRunner:
    """Calls an engine on any number of images, in batches that its profile contains.

    A short batch is padded by repeating its last row, and the padding is cut off again. Engines do not travel with a
    pickle; each process loads its own on first use.

    Attributes:
        path: of the engine.
        input: shape, dtype and name of the images.
        outputs: names to return, in order.
        options: `cuda_graph` and `version_compatible` are read here.
        device: that it runs on.
    """

    path: Path
    input: TensorSpec
    outputs: tuple[TensorSpec, ...]
    options: TrtOptions = field(default_factory=TrtOptions)
    device: str = "cuda"
    _session: "Session | None" = field(default=None, repr=False, compare=False)
    _graph: "Launch | None" = field(default=None, repr=False, compare=False)

    def __call__(self, images: Array) -> dict[str, Array]:
        """Outputs by name, one row per image.

        Raises:
            UsageError: images of another shape or dtype than the engine takes, or none at all.
            BundleError, TargetUnavailableError: as `load` does.
        """
        check_images(images, self.input)
        smallest, largest = self._open().batches
        declared = self.input.shape[0]
        size = min(len(images), largest) if isinstance(declared, str) else declared
        chunks = [images[start : start + size] for start in range(0, len(images), size)]
        parts = [
            self._run(chunk, max(smallest, len(chunk)) if isinstance(declared, str) else size)
            for chunk in chunks
        ]
        return {spec.name: np.concatenate([part[spec.name] for part in parts]) for spec in self.outputs}

    def load(self) -> None:
        """Load the engine now, which the first call does otherwise.

        Raises:
            TargetUnavailableError: TensorRT or a GPU is missing, or the engine was built for others of them.
            BundleError: the engine is damaged, or is not of this model.
            UsageError: its profile does not contain the batch.
        """
        self._open()

    def forward(self, images: "Tensor") -> "dict[str, Tensor]":
        """Outputs by name for one batch that lies on the GPU, enqueued on torch's current stream.

        Args:
            images: (B, ...), with B in the engine's profile.

        Raises:
            UsageError: a batch outside of the profile, or another shape or dtype.
        """
        check_images(images, self.input)
        self._check_batch(len(images), self._open().batches)
        if not self.options.cuda_graph:
            return self._open().run(images)
        if self._graph is None or self._graph.images.shape != images.shape:
            self._graph = None  # only the latest is kept; this one's memory is free for the next
            self._graph = self._open().prepare(images.clone(), cuda_graph=True)
        self._graph.images.copy_(images)
        return {name: output.clone() for name, output in self._graph().items()}

    def on_device(self, images: Array, cuda_graph: bool) -> Callable[[], object]:
        """A call without arguments that enqueues one batch on torch's current stream: no copies, no waiting.

        Args:
            images: (B, ...), with B in the engine's profile; copied to the GPU now.
            cuda_graph: replay a captured graph.

        Returns:
            The call; it returns the output tensors, which the next one overwrites.
        """
        import torch

        check_images(images, self.input)
        session = self._open()
        self._check_batch(len(images), session.batches)
        given = torch.from_numpy(np.ascontiguousarray(images)).to(session.device.place)
        launch = session.prepare(given, cuda_graph=cuda_graph)

        def call() -> object:
            written = launch()
            return tuple(written[spec.name] for spec in self.outputs)

        return call

    def refit(self, onnx: Path) -> None:
        """Replace the weights by those of another model of the same graph; for engines built with `refit`.

        Raises:
            BundleError: TensorRT refuses them.
        """
        self._open().replace_weights(onnx)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_session": None, "_graph": None}

    def _run(self, images: Array, size: int) -> dict[str, Array]:
        import torch

        given = torch.from_numpy(padded(images, size)).to(self._open().device.place)
        return {name: result[: len(images)].cpu().numpy() for name, result in self.forward(given).items()}

    def _open(self) -> "Session":
        if self._session is None:
            from exporter.targets.trt.session import open_session

            names = [spec.name for spec in self.outputs]
            session = open_session(self.path, self.input.name, names, self.options)
            declared = self.input.shape[0]
            if isinstance(declared, int):
                self._check_batch(declared, session.batches)
            self._session = session
        return self._session

    def _check_batch(self, batch: int, batches: tuple[int, int]) -> None:
        smallest, largest = batches
        if not smallest <= batch <= largest:
            expected = str(largest) if smallest == largest else f"{smallest} to {largest}"
            raise UsageError(
                f"{self.path.name}: expected a batch of {expected}, which is the engine's profile, got {batch}; "
                "build an engine whose trt.min_batch and trt.max_batch contain it"
            )
