"""A moved program on a GPU that is pretended: tensors without numbers know their shapes, types and devices.

PyTorch's own kernels for such tensors check what a graph asserts of them, as a real GPU's would.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch._guards import detect_fake_mode
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import ExportedProgram

from exporter.graph.move import move
from exporter.schedule import ScheduleRequest
from tests.support.compiled import captured_family

GPU = torch.device("cuda", 0)


class Creates(nn.Module):
    """Parameters, a constant, and each way in which a graph names a device."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.constant = torch.arange(4.0)

    def forward(self, x: Tensor) -> Tensor:
        ranks = torch.arange(4, device=x.device) + torch.zeros(4, device=x.device)
        rounded: Tensor = self.linear(x).to(torch.float16).float()
        return (rounded + ranks + self.constant).to("cpu") + torch.zeros_like(x)


def pretending(exported: ExportedProgram) -> FakeTensorMode:
    """The mode in which every tensor that is made is one without numbers; that of the graph's own notes."""
    mode = detect_fake_mode([node.meta.get("val") for node in exported.graph.nodes])
    assert mode is not None
    mode.allow_non_fake_inputs = True
    return mode


def small() -> ExportedProgram:
    return torch.export.export(Creates(), (torch.zeros(2, 4),))


def reduced() -> ExportedProgram:
    return (
        captured_family("timm_vit")
        .compile(ScheduleRequest(r=4), precision="fp16", dynamic_batch=True)
        .exported
    )


def devices_named(exported: ExportedProgram) -> set[torch.device]:
    """All devices that the graph names as arguments."""
    named = set()
    for node in exported.graph.nodes:
        given = [*node.args, *node.kwargs.values()]
        named |= {each for each in given if isinstance(each, torch.device)}
        named |= {torch.device(node.kwargs["device"])} if node.kwargs.get("device") else set()
    return named


@pytest.mark.parametrize("program", [small, reduced])
def test_moved_program_runs_where_its_inputs_are(
    program: Callable[[], ExportedProgram], monkeypatch: pytest.MonkeyPatch
) -> None:
    exported = program()
    (example,) = exported.example_inputs[0]
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    with pretending(exported):
        moved = move(exported, "cuda")

        results = moved.module(check_guards=False)(torch.empty_like(example, device=GPU))

        held = [*moved.state_dict.values(), *moved.constants.values(), *moved.example_inputs[0]]
        assert {each.device for each in held} == {GPU}
    assert {each.device for each in (results if isinstance(results, tuple) else (results,))} == {GPU}
    assert devices_named(moved) == {GPU}


def test_device_is_the_current_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)

    exported = small()

    with pretending(exported):
        moved = move(exported, "cuda")

    assert devices_named(moved) == {torch.device("cuda", 3)}


def test_program_given_stays_where_it_is() -> None:
    exported, images = small(), torch.ones(2, 4)
    expected = exported.module()(images)

    with pretending(exported):
        move(exported, "cuda:0")

    assert devices_named(exported) == {torch.device("cpu")}
    torch.testing.assert_close(exported.module()(images), expected, rtol=0, atol=0)


def test_program_moved_to_the_cpu_is_the_same_over_the_same_parameters() -> None:
    exported, images = small(), torch.ones(2, 4)

    moved = move(exported, "cpu")

    assert moved.state_dict["linear.weight"].data_ptr() == exported.state_dict["linear.weight"].data_ptr()
    torch.testing.assert_close(moved.module()(images), exported.module()(images), rtol=0, atol=0)
