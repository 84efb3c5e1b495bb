"""Drawn weights, and the recording of what becomes of them."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, fx, nn

from exporter.errors import InternalError
from tools.gpu.derive import Recording
from tools.gpu.draw import Parameter, draw, pictures, table
from tools.gpu.packed import read, write_program


def test_drawn_values_have_the_mean_and_spread_asked_for_and_depend_on_the_name() -> None:
    wanted = Parameter(shape=(300, 200), mean=0.5, spread=2.0)

    first, again, other = draw("a", wanted, "cpu"), draw("a", wanted, "cpu"), draw("b", wanted, "cpu")

    assert torch.equal(first, again)
    assert first.mean().item() == pytest.approx(0.5, abs=0.03)
    assert first.std().item() == pytest.approx(2.0, rel=0.01)
    assert abs(torch.corrcoef(torch.stack([first.flatten(), other.flatten()]))[0, 1].item()) < 0.02
    halves = torch.stack([first.flatten()[:-1], first.flatten()[1:]])
    assert abs(torch.corrcoef(halves)[0, 1].item()) < 0.02


def test_matrices_keep_activations_in_range_and_vectors_stay_near_their_start() -> None:
    found = table(nn.Sequential(nn.Linear(64, 32), nn.LayerNorm(32)))

    assert found["0.weight"] == Parameter(shape=(32, 64), mean=0.0, spread=0.125)
    assert found["1.weight"].mean == 1.0 and found["1.weight"].spread < 0.1


def test_pictures_differ_from_each_other() -> None:
    shown = pictures(3, (3, 32, 48), "cpu")

    assert shown.shape == (3, 3, 32, 48)
    assert (shown[0] - shown[1]).abs().mean() > 0.5


class Folded(nn.Module):
    """What the compiler does to weights: scales, moves, narrows and joins them."""

    def __init__(self, weight: Tensor, vector: Tensor) -> None:
        super().__init__()
        factor = torch.ones(8).index_fill_(0, torch.tensor([1, 3]), 0.25)
        joined = torch.cat([weight * factor[:, None], weight.view(2, 4, 6).mean(0)])
        self.weight = nn.Parameter(joined[torch.tensor([3, 1, 2, 0])].half(), requires_grad=False)
        self.plain = nn.Parameter(vector, requires_grad=False)
        self.register_buffer("places", torch.arange(6))

    def forward(self, x: Tensor) -> Tensor:
        places: Tensor = self.places  # type: ignore[assignment]
        return nn.functional.linear((x + self.plain + places).half(), self.weight)


def sources() -> dict[str, Tensor]:
    shapes = {"w": (8, 6), "v": (6,), "unused": (5, 5)}
    return {
        name: draw(name, Parameter(shape=shape, mean=0.0, spread=1.0), "cpu")
        for name, shape in shapes.items()
    }


def test_program_without_weights_computes_the_same_with_drawn_ones(tmp_path: Path) -> None:
    drawn = sources()
    recording = Recording(drawn)
    with recording.running():
        module = Folded(drawn["w"], drawn["v"])
        exported = torch.export.export(module, (torch.zeros((3, 6)),))
    x = torch.randn((3, 6), generator=torch.Generator().manual_seed(1))
    expected = module(x)
    asked: list[str] = []

    def redrawn(name: str) -> Tensor:
        asked.append(name)
        return sources()[name]

    write_program(tmp_path / "program.zip", exported, recording)
    program = read(tmp_path / "program.zip", redrawn, "cpu")

    assert torch.equal(program.module()(x), expected)
    assert sorted(asked) == ["v", "w"]
    other = read(tmp_path / "program.zip", lambda name: sources()[name] + 1, "cpu")
    assert not torch.equal(other.module()(x), expected)


def test_large_tensor_that_follows_from_no_parameter_is_refused(tmp_path: Path) -> None:
    module = nn.Linear(1024, 1024, bias=False)
    exported = torch.export.export(module, (torch.zeros((1, 1024)),))

    with pytest.raises(InternalError, match="weight of 4194304 bytes does not follow"):
        write_program(tmp_path / "program.zip", exported, Recording({"other": torch.zeros(2)}))


def test_parameter_that_is_changed_in_place_is_refused() -> None:
    weight = torch.ones((2, 2))
    with pytest.raises(InternalError, match="in place"), Recording({"w": weight}).running():
        weight.mul_(2)


def test_activations_of_a_graph_that_is_run_are_no_weights() -> None:
    weight = torch.ones((2, 2))
    graph_module = fx.symbolic_trace(lambda x: x * 2)
    recording = Recording({"w": weight})

    with recording.running():
        activation, scaled = fx.Interpreter(graph_module).run(weight), weight * 2

    assert recording.knows(scaled) and not recording.knows(activation)
