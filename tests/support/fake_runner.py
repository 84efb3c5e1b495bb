"""A runner without an engine."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from exporter.targets import Array, Inputs, Runner, Signature


@dataclass(kw_only=True)
class FakeRunner(Runner):
    """Computes its outputs by a Python function of the inputs in order, and keeps what it was given."""

    compute: Callable[..., dict[str, Array]]
    path: Path = Path("fake")
    signature: Signature = field(default_factory=lambda: Signature(inputs=(), outputs=()))
    seen: list[Array] = field(default_factory=list)

    def __call__(self, inputs: Inputs) -> dict[str, Array]:
        arrays = list(inputs.values()) if isinstance(inputs, Mapping) else [inputs]
        self.seen += arrays
        return self.compute(*arrays)

    def _open(self) -> Any:
        return self

    def _run(self, engine: Any, batches: Any) -> Any:
        raise NotImplementedError
