"""Seeded inputs of a loaded model, and the comparison of what it computes with its library."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from exporter.models import LoadedModel


def example_of(loaded: LoadedModel, batch: int = 2) -> torch.Tensor:
    """A seeded batch of the model's one input."""
    generator = torch.Generator().manual_seed(0)
    shape = (batch, *loaded.example_input.shape)
    if loaded.example_input.vocabulary is None:
        return torch.randn(shape, generator=generator)
    return torch.randint(0, min(loaded.example_input.vocabulary, 99), shape, generator=generator)


@torch.no_grad()
def assert_computes(loaded: LoadedModel, expected: Callable[[torch.Tensor], Any]) -> None:
    """Compare with what a module or function of the library gives for the same inputs."""
    assert isinstance(loaded.module, nn.Module)
    inputs = example_of(loaded)
    output: torch.Tensor = expected(inputs)
    assert len(output.unique()) > 1
    torch.testing.assert_close(loaded.module(inputs), output, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def assert_captures(loaded: LoadedModel) -> torch.fx.Graph:
    """Export with a free batch, compare at another batch, and return the graph."""
    assert isinstance(loaded.module, nn.Module)
    shapes = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(loaded.module, (example_of(loaded),), dynamic_shapes=shapes)
    three = example_of(loaded, batch=3)
    torch.testing.assert_close(program.module()(three), loaded.module(three), rtol=1e-5, atol=1e-5)
    graph: torch.fx.Graph = program.graph
    return graph


def save_state(module: nn.Module, folder: Path) -> str:
    """Save the state dict of a module; returns the path of the file."""
    path = folder / "w.safetensors"
    save_file({name: tensor.clone() for name, tensor in module.state_dict().items()}, path)
    return str(path)
