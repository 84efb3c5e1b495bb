"""A refusal of every kind: its status, one line that says what to do, and nothing left; rooms test their own cases."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.cli.commands import refused, run, tree

# The model


@pytest.mark.parametrize(
    ("model", "hint"),
    [
        pytest.param("vit_digit", 'Did you mean "vit_digits"?', id="alias"),
        pytest.param("timm:vit_base_patch61_224", 'Did you mean "vit_base_patch16_224', id="timm"),
        pytest.param("hf:./no-such-folder", "no-such-folder", id="local checkpoint"),
        pytest.param("missing.pt2", "missing.pt2", id="saved program"),
    ],
)
def test_unknown_models_suggest_near_names(model: str, hint: str, workplace: Path) -> None:
    assert hint in refused(3, model, "--r", "4")


def test_pretrained_weights_need_a_network(
    workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))

    complaint = refused(3, "timm:vit_tiny_patch16_224", "--r", "8")

    assert "no network" in complaint
    assert "--weights" in complaint


@pytest.mark.parametrize(
    ("model", "words"),
    [
        pytest.param(["timm:resnet18"], ["attention", "Vision Transformer"], id="resnet"),
        pytest.param(
            ["timm:vit_tiny_patch16_224", "--model-option", "depth=2", "--model-option", "global_pool=max"],
            ["mean over the tokens", "--r 0"],
            id="maximum of the tokens",
        ),
    ],
)
def test_unsupported_graphs_say_why(model: list[str], words: list[str], workplace: Path) -> None:
    complaint = refused(4, *model, "--weights", "random", "--r", "4")

    assert all(word in complaint for word in words)


class MeanOfPatches(nn.Module):
    """A model whose number of tokens is whatever the image gives."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 4, stride=4)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, images: Tensor) -> Tensor:
        """Attend over the patches and average them."""
        tokens = self.patch(images).flatten(2).transpose(1, 2)
        pooled: Tensor = (tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]).mean(1)
        return pooled


def save_program(path: Path, **shapes: Any) -> Path:
    model = MeanOfPatches().eval().requires_grad_(False)
    with torch.no_grad():
        torch.export.save(torch.export.export(model, (torch.randn(2, 3, 24, 24),), **shapes), path)
    return path


def test_saved_program_with_dynamic_tokens(workplace: Path, tmp_path: Path) -> None:
    side = 4 * torch.export.Dim("side", min=2, max=16)
    path = save_program(tmp_path / "dynamic.pt2", dynamic_shapes=({2: side, 3: side},))

    complaint = refused(4, path, "--r", "4")

    assert "dynamic tokens" in complaint
    assert "static" in complaint


@pytest.mark.parametrize(
    ("words", "fact"),
    [
        pytest.param(["--weights", "none.safetensors"], "none.safetensors", id="not there"),
        pytest.param(["--weights", "mine.safetensors"], "unexpected", id="another architecture"),
    ],
)
def test_weights_that_cannot_be_taken(
    words: list[str], fact: str, weights_file: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = [str(weights_file) if word == weights_file.name else word for word in words]

    assert fact in refused(3, "vit_digits", *given, "--r", "4")


# The schedule and other options -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "facts"),
    [
        pytest.param(["--r", "many"], ["--r", "many", "integer"], id="r in words"),
        pytest.param(["--r-per-layer", "4,4,4,4,4"], ["4 blocks", "got 5"], id="list too long"),
        pytest.param(["--r-per-layer", "19,0,0,0"], ["block 0", "0 to 18", "got 19"], id="more than half"),
        pytest.param(["--r-per-layer", "4,-1,4,4"], ["r_per_layer[1]", "-1"], id="negative entry"),
        pytest.param(["--r", "4", "--r-per-layer", "4,4,4,4"], ["r_per_layer"], id="two schedules"),
        pytest.param(["--method", "tomee"], ["method", 'Did you mean "tome"?'], id="method"),
        pytest.param(
            ["--method-option", "margin"], ["--method-option", "NAME=VALUE"], id="option without value"
        ),
        pytest.param(["--batch", "2", "--dynamic-batch"], ["batch"], id="both batches"),
        pytest.param(["--disable-pass", "fold_scale"], ["pass", "known"], id="pass"),
        pytest.param(["--name", "../up"], ["name", "folder name"], id="name"),
        pytest.param(["--target", "onxn"], ["target", 'Did you mean "onnx"?'], id="target"),
        pytest.param(["--no-such-option"], ["--no-such-option"], id="option"),
        pytest.param(["--tower", "text"], ["text tower"], id="text tower of a ViT"),
        pytest.param(["--data", "nowhere"], ["nowhere", "folder of images"], id="data folder"),
        pytest.param(["--max-drop", "1"], ["max_drop", "--data"], id="drop without data"),
    ],
)
def test_impossible_options(vit_dir: Path, workplace: Path, words: list[str], facts: list[str]) -> None:
    complaint = refused(2, f"hf:{vit_dir}", *words)

    assert [fact for fact in facts if fact not in complaint] == []


def test_no_arguments_at_all() -> None:
    outcome = run()

    assert outcome.status == 2
    assert "Usage" in outcome.err
    assert outcome.out == ""


# Recipes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        pytest.param("model: vit_digits\nshedule: {r: 4}\n", ["shedule", '"schedule"'], id="unknown key"),
        pytest.param("model: vit_digits\nschedule: {r: -4}\n", ["schedule.r", ">= 0"], id="value"),
        pytest.param("model: [\n", ["line"], id="not YAML"),
    ],
)
def test_recipes(tmp_path: Path, workplace: Path, text: str, facts: list[str]) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")

    complaint = refused(2, "run", path)

    assert [fact for fact in ["recipe.yaml", *facts] if fact not in complaint] == []


def test_recipe_that_is_not_there(workplace: Path) -> None:
    assert "nowhere.yaml" in refused(2, "run", "nowhere.yaml")


# Where the bundle goes ----------------------------------------------------------------------------


def test_out_that_exists(vit_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    before = tree(tmp_path)

    assert "--force" in refused(2, f"hf:{vit_dir}", "--r", "4", "--out", out)
    assert tree(tmp_path) == before


def test_force_replaces_nothing_but_bundles(vit_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("mine", encoding="utf-8")
    before = tree(tmp_path)

    assert "--force replaces only a bundle" in refused(2, f"hf:{vit_dir}", "--out", out, "--force")
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("words", "status"),
    [
        pytest.param(["export", "vit_digit"], 3, id="model"),
        pytest.param(["vit_digits", "--r", "-1"], 2, id="value"),
        pytest.param(["vit_digits", "--target", "trt"], 7, id="target"),
        pytest.param(["run", "nowhere.yaml"], 2, id="recipe"),
        pytest.param(["validate", "nowhere"], 8, id="bundle"),
        pytest.param(["inspect", "timm:resnet18", "--weights", "random"], 4, id="graph"),
        pytest.param(["export"], 2, id="missing argument"),
    ],
)
def test_failures_are_one_json_document_too(words: list[str], status: int, workplace: Path) -> None:
    outcome = run(*words, "--json")

    assert outcome.status == status
    assert outcome.document.keys() == {"error", "exit_status"}
    assert outcome.document["exit_status"] == status
    assert outcome.document["error"] == outcome.complaint


def test_debug_shows_where_it_failed(workplace: Path) -> None:
    outcome = run("vit_digit", "--debug")

    assert outcome.status == 3
    assert "Traceback" in outcome.err
    assert outcome.err.splitlines()[-1].startswith("error: ")
