"""Programs that were saved in training mode are refused by name; what trains nothing is let through."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from exporter.errors import UnsupportedGraphError
from exporter.models import ModelRequest, load


class Net(nn.Module):
    """Convolution, something that trains, and a mean."""

    def __init__(self, middle: nn.Module) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.middle = middle

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) to (B, 8)."""
        mean: torch.Tensor = self.middle(self.patches(images)).mean((2, 3))
        return mean


class DropPath(nn.Module):
    """As timm and transformers drop whole samples."""

    def __init__(self, draw: str) -> None:
        super().__init__()
        self.draw = draw

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Drop, in training."""
        if not self.training:
            return x
        shape = (x.shape[0], 1, 1, 1)
        if self.draw == "bernoulli":
            return x * x.new_empty(shape).bernoulli_(0.9)
        return x * (0.9 + torch.rand(shape)).floor()


class Attention(nn.Module):
    """`scaled_dot_product_attention` with dropout in training."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Mix rows."""
        chance = 0.1 if self.training else 0.0
        return nn.functional.scaled_dot_product_attention(x, x, x, dropout_p=chance)


def save(path: Path, module: nn.Module, *, lowered: bool = False) -> Path:
    """Export in the mode that the module is in, and save."""
    program = torch.export.export(module, (torch.randn(2, 3, 32, 32),))
    if lowered:
        program = program.run_decompositions()
    torch.export.save(program, path)
    return path


TRAINING: dict[str, Any] = {
    "dropout": lambda: nn.Dropout(0.1),
    "dropout of channels": lambda: nn.Dropout2d(0.1),
    "alpha dropout": lambda: nn.AlphaDropout(0.1),
    "batch norm": lambda: nn.BatchNorm2d(8),
    "random slope": lambda: nn.RReLU(),
    "drop path of timm": lambda: DropPath("bernoulli"),
    "drop path of transformers": lambda: DropPath("rand"),
    "attention": Attention,
}


@pytest.mark.parametrize(
    ("middle", "lowered"),
    [
        *(pytest.param(name, False, id=name) for name in TRAINING),
        pytest.param("dropout", True, id="dropout, decomposed"),
        pytest.param("batch norm", True, id="batch norm, decomposed"),
    ],
)
def test_a_program_saved_in_training_mode_is_refused_with_the_fix(
    middle: str, lowered: bool, tmp_path: Path
) -> None:
    path = save(tmp_path / "m.pt2", Net(TRAINING[middle]()).train(), lowered=lowered)
    with pytest.raises(
        UnsupportedGraphError, match=r"m\.pt2 was saved in training mode: its node .* \(aten\."
    ) as caught:
        load(ModelRequest(model=str(path)))
    assert "call model.eval(), export and save it again" in str(caught.value)
    assert caught.value.exit_status == 4


@pytest.mark.parametrize("middle", TRAINING)
def test_the_same_model_in_evaluation_mode_is_let_through(middle: str, tmp_path: Path) -> None:
    model = Net(TRAINING[middle]()).eval()
    loaded = load(ModelRequest(model=str(save(tmp_path / "m.pt2", model))))
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(loaded.module.module()(images), model(images), rtol=0, atol=0)  # type: ignore[operator]


@pytest.mark.parametrize(
    "middle",
    [
        pytest.param(nn.Dropout(0.0), id="dropout of nothing"),
        pytest.param(nn.BatchNorm2d(8, track_running_stats=False), id="statistics of the batch by design"),
        pytest.param(nn.LayerNorm(8), id="layer norm"),
    ],
)
def test_what_training_does_not_change_is_let_through(middle: nn.Module, tmp_path: Path) -> None:
    path = save(tmp_path / "m.pt2", Net(middle).train())
    assert load(ModelRequest(model=str(path))).output_names == ("logits",)


def test_a_timm_vit_that_drops_nothing_may_be_saved_in_training_mode(
    tiny_vit: nn.Module, tmp_path: Path
) -> None:
    images = torch.randn(2, 3, 32, 32)
    expected = tiny_vit(images)
    try:
        path = save(tmp_path / "m.pt2", tiny_vit.train())
    finally:
        tiny_vit.eval()
    module = load(ModelRequest(model=str(path))).module
    torch.testing.assert_close(module.module()(images), expected, rtol=1e-5, atol=1e-5)  # type: ignore[operator]
