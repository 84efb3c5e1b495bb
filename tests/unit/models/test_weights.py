"""Weights from files, strictly; weights from seeds, reproducibly; fingerprints."""

import copy
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from exporter.errors import ModelUnavailableError, WeightsError
from exporter.models import ModelRequest, load
from exporter.models.weights import build_random, check_finite, redraw_constant_parameters, sha256_of

TINY = "timm:test_vit"


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    """The state dict of a tiny registered timm ViT."""
    module = load(ModelRequest(model=TINY, weights="random", seed=3)).module
    assert isinstance(module, nn.Module)
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def test_a_file_gives_its_own_weights(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    save_file(state, tmp_path / "w.safetensors")
    loaded = load(ModelRequest(model=TINY, weights=str(tmp_path / "w.safetensors")))
    assert isinstance(loaded.module, nn.Module)
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.module.state_dict().items())
    assert (loaded.weights_kind, loaded.weights_tag) == ("file", None)
    assert not loaded.module.training
    assert not any(parameter.requires_grad for parameter in loaded.module.parameters())


def test_wrong_keys_and_shapes_are_listed_in_one_line(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    wrong = {name: tensor for name, tensor in state.items() if name != "norm.bias"}
    wrong |= {"blocks.0.norm1.bias": torch.zeros(7), "extra.one": torch.zeros(1)}
    save_file(wrong, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError) as caught:
        load(ModelRequest(model=TINY, weights=str(tmp_path / "w.safetensors")))
    message = str(caught.value)
    assert "1 missing: norm.bias" in message
    assert "1 unexpected: extra.one" in message
    assert "1 mis-shaped: blocks.0.norm1.bias (expected (64,), got (7,))" in message
    assert "\n" not in message
    assert caught.value.exit_status == 3


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_refused_by_name(
    value: float, state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    broken = state["blocks.1.mlp.fc1.weight"].clone()
    broken[0, :3] = value
    save_file(state | {"blocks.1.mlp.fc1.weight": broken}, tmp_path / "w.safetensors")
    with pytest.raises(
        WeightsError, match=r"blocks\.1\.mlp\.fc1\.weight holds 3 values that are not finite"
    ) as caught:
        load(ModelRequest(model=TINY, weights=str(tmp_path / "w.safetensors")))
    assert caught.value.exit_status == 3


def test_a_saved_program_with_weights_that_are_not_finite_is_refused(
    tiny_vit: nn.Module, tmp_path: Path
) -> None:
    broken = copy.deepcopy(tiny_vit)
    with torch.no_grad():
        broken.get_parameter("blocks.0.norm1.bias")[2] = float("nan")
        program = torch.export.export(broken, (torch.randn(2, 3, 32, 32),))
    torch.export.save(program, tmp_path / "broken.pt2")
    with pytest.raises(WeightsError, match=r"blocks\.0\.norm1\.bias holds 1 value that is not finite"):
        load(ModelRequest(model=str(tmp_path / "broken.pt2")))


def test_infinities_of_a_mask_are_no_weights() -> None:
    module = nn.Linear(2, 2)
    module.register_buffer("mask", torch.full((2,), float("-inf")))
    check_finite(module)


def test_many_wrong_keys_are_counted(tmp_path: Path) -> None:
    save_file({f"key{number}": torch.zeros(1) for number in range(9)}, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="9 unexpected: key0, key1, key2 and 6 more"):
        load(ModelRequest(model=TINY, weights=str(tmp_path / "w.safetensors")))


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        pytest.param("/not/there.safetensors", "does not exist", id="missing"),
        pytest.param("randon", 'Did you mean "random"', id="misspelled"),
        pytest.param(".", "is a folder", id="folder"),
    ],
)
def test_a_file_that_is_not_there_is_refused(weights: str, expected: str) -> None:
    with pytest.raises(WeightsError, match=expected):
        load(ModelRequest(model=TINY, weights=weights))


def test_the_same_seed_gives_the_same_weights_and_leaves_the_callers_state_alone() -> None:
    torch.manual_seed(17)
    expected = torch.rand(1)
    torch.manual_seed(17)
    digests = [
        load(ModelRequest(model=TINY, weights="random", seed=seed)).weights_sha256 for seed in (0, 0, 1)
    ]
    assert digests[0] == digests[1] != digests[2]
    assert torch.equal(torch.rand(1), expected)


def test_random_weights_leave_no_output_constant() -> None:
    def build() -> nn.Module:  # torchvision starts heads and class tokens at zero
        vit: nn.Module = torchvision.models.VisionTransformer(32, 8, 2, 2, 32, 64, num_classes=10)
        return vit

    module = build_random(build, seed=0)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = module(images)
    assert logits.std(dim=1).min() > 0.01
    assert (logits[0] - logits[1]).abs().max() > 0.01


def test_redrawing_touches_only_what_is_constant() -> None:
    module = nn.ParameterDict(
        {
            "head": nn.Parameter(torch.zeros(8, 8)),
            "layer_scale": nn.Parameter(torch.full((64,), 1e-5)),
            "norm": nn.Parameter(torch.ones(64)),
            "spread": nn.Parameter(torch.randn(8, 8)),
            "temperature": nn.Parameter(torch.tensor(4.6)),
        }
    )
    before = {name: parameter.detach().clone() for name, parameter in module.items()}
    torch.manual_seed(0)
    redraw_constant_parameters(module)
    assert module["head"].std() > 0.01
    assert module["layer_scale"].min() > 0.01
    assert 0.9 < module["norm"].mean() < 1.1
    assert torch.equal(module["spread"], before["spread"])
    assert torch.equal(module["temperature"], before["temperature"])


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"a": torch.tensor([1.0, 2.5])}, id="value"),
        pytest.param({"b": torch.tensor([1.0, 2.0])}, id="name"),
        pytest.param({"a": torch.tensor([[1.0, 2.0]])}, id="shape"),
        pytest.param({"a": torch.tensor([1.0, 2.0]).view(torch.int32)}, id="dtype"),
    ],
)
def test_the_fingerprint_sees_every_change(changed: dict[str, torch.Tensor]) -> None:
    assert sha256_of(changed) != sha256_of({"a": torch.tensor([1.0, 2.0])})


def test_the_fingerprint_does_not_depend_on_order_or_memory_layout() -> None:
    matrix = torch.arange(6.0).reshape(2, 3)
    strided = matrix.T.contiguous().T
    assert sha256_of({"a": matrix, "b": matrix}) == sha256_of({"b": strided, "a": strided})


@pytest.mark.parametrize(
    "model",
    [
        pytest.param("vit_ti16", id="timm"),
        pytest.param("torchvision:vit_b_16", id="torchvision"),
        pytest.param("clip_vit_b32", id="open_clip"),
        pytest.param("hf:facebook/dinov2-small", id="hf"),
    ],
)
def test_without_network_pretrained_weights_are_refused_in_one_line(
    model: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import urllib.request

    from exporter.models import fetch

    def no_network(*_args: object, **_kwargs: object) -> None:
        raise OSError("no network in this test")

    monkeypatch.setattr(urllib.request, "urlopen", no_network)
    monkeypatch.setattr("torch.hub.urlopen", no_network)
    monkeypatch.setattr(fetch, "_hub_answers", lambda: False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ModelUnavailableError, match="cannot fetch") as caught:
        load(ModelRequest(model=model))
    assert caught.value.exit_status == 3
    assert "\n" not in str(caught.value)
