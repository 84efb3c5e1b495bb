"""Every refusal: its status, one line that says what to do, and nothing left behind."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tests.cli.commands import refused, run, tree
from tests.support.families import family

# The model


@pytest.mark.parametrize(
    ("model", "hint"),
    [
        pytest.param("vit_digit", 'Did you mean "vit_digits"?', id="alias"),
        pytest.param("vit_b61", 'Did you mean "vit_b16"?', id="alias with swapped digits"),
        pytest.param("timm:vit_base_patch61_224", 'Did you mean "vit_base_patch16_224', id="timm"),
        pytest.param("torchvision:vit_b16", 'Did you mean "vit_b_16"?', id="torchvision"),
        pytest.param("open_clip:ViT-B32", 'Did you mean "ViT-B-32', id="open_clip"),
        pytest.param("tim:vit_tiny_patch16_224", 'Did you mean "timm"?', id="source"),
        pytest.param("hf:./no-such-folder", "no-such-folder", id="local checkpoint"),
        pytest.param("missing.pt2", "missing.pt2", id="saved program"),
    ],
)
def test_unknown_models_suggest_near_names(model: str, hint: str, workplace: Path) -> None:
    assert hint in refused(3, model, "--r", "4")


@pytest.mark.parametrize(
    "model",
    [
        pytest.param("vit_b16", id="timm"),
        pytest.param("torchvision:vit_b_16", id="torchvision"),
        pytest.param("open_clip:ViT-B-32/laion2b_s34b_b79k", id="open_clip"),
        pytest.param("hf:google/vit-base-patch16-224", id="hf"),
    ],
)
def test_pretrained_weights_need_a_network(
    model: str, workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))

    complaint = refused(3, model, "--r", "8")

    assert "no network" in complaint
    assert "--weights" in complaint


@pytest.mark.parametrize(
    ("model", "words"),
    [
        pytest.param("timm:resnet18", ["attention", "Vision Transformer"], id="resnet"),
        pytest.param("timm:swin_tiny_patch4_window7_224", ["window"], id="swin"),
        pytest.param("timm:eva02_tiny_patch14_224", ["table", "--r 0"], id="rope"),
    ],
)
def test_unsupported_graphs_say_why(model: str, words: list[str], workplace: Path) -> None:
    complaint = refused(4, model, "--weights", "random", "--r", "4")

    assert all(word in complaint for word in words)


def test_models_without_tokens_are_refused_by_inspect_too(workplace: Path) -> None:
    refused(4, "inspect", "timm:resnet18", "--weights", "random")


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


def test_saved_program_that_is_damaged(workplace: Path, tmp_path: Path) -> None:
    path = save_program(tmp_path / "cut.pt2")
    path.write_bytes(path.read_bytes()[:1000])

    assert "cut.pt2" in refused(3, path)


def test_image_size_must_be_tiled_by_patches(vit_dir: Path, workplace: Path) -> None:
    complaint = refused(2, f"hf:{vit_dir}", "--image-size", "30")

    assert "multiple of its patch size 4" in complaint
    assert "28 or 32" in complaint


def test_image_size_must_be_tiled_by_patches_of_timm(workplace: Path) -> None:
    complaint = refused(2, "timm:vit_tiny_patch16_224", "--weights", "random", "--image-size", "100")

    assert "multiple of its patch size 16" in complaint


# The weights --------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["vit_digits", "timm:vit_tiny_patch16_224", "hf"])
def test_weights_file_that_is_not_there(model: str, vit_dir: Path, workplace: Path) -> None:
    name = f"hf:{vit_dir}" if model == "hf" else model

    assert "none.safetensors" in refused(3, name, "--weights", "none.safetensors")


@pytest.mark.parametrize("model", ["vit_digits", "hf"])
def test_weights_file_that_is_damaged(model: str, vit_dir: Path, workplace: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    save_file({"a": torch.randn(100)}, path)
    path.write_bytes(path.read_bytes()[:200])

    complaint = refused(3, f"hf:{vit_dir}" if model == "hf" else model, "--weights", path)

    assert "cut.safetensors" in complaint
    assert "damaged" in complaint


def test_weights_that_are_a_pickle_are_not_read(workplace: Path, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    torch.save({"a": torch.randn(3)}, path)

    assert "safetensors" in refused(3, "vit_digits", "--weights", path)


@pytest.mark.parametrize("model", ["vit_digits", "timm:vit_tiny_patch16_224"])
def test_weights_of_another_architecture_are_listed(model: str, weights_file: Path, workplace: Path) -> None:
    complaint = refused(3, model, "--weights", weights_file, "--r", "4")

    assert "missing" in complaint
    assert "unexpected" in complaint
    assert "mine.safetensors" in complaint


def test_weights_of_another_width_are_listed(vit_dir: Path, workplace: Path, tmp_path: Path) -> None:
    wide = family("hf_vit").model().tower
    assert isinstance(wide, nn.Module)
    state = {name: tensor.repeat_interleave(2, dim=0) for name, tensor in wide.state_dict().items()}
    save_file(state, tmp_path / "wide.safetensors")

    assert "mis-shaped" in refused(3, f"hf:{vit_dir}", "--weights", tmp_path / "wide.safetensors")


# The schedule and other options -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "facts"),
    [
        pytest.param(["--r", "-1"], ["schedule.r", ">= 0", "-1"], id="negative r"),
        pytest.param(["--r", "4.5"], ["--r", "4.5", "integer"], id="fractional r"),
        pytest.param(["--r", "many"], ["--r", "many", "integer"], id="r in words"),
        pytest.param(["--r-per-layer", "4,4,4"], ["4 blocks", "got 3"], id="list too short"),
        pytest.param(["--r-per-layer", "4,4,4,4,4"], ["4 blocks", "got 5"], id="list too long"),
        pytest.param(["--r-per-layer", "19,0,0,0"], ["block 0", "0 to 18", "got 19"], id="more than half"),
        pytest.param(["--r-per-layer", "18,10,0,0"], ["block 1", "0 to 9", "got 10"], id="more than is left"),
        pytest.param(["--r-per-layer", "4,-1,4,4"], ["r_per_layer[1]", "-1"], id="negative entry"),
        pytest.param(["--r-per-layer", "4,x,4,4"], ["--r-per-layer", "integer", "x"], id="entry in words"),
        pytest.param(["--r-per-layer", ""], ["--r-per-layer"], id="empty list"),
        pytest.param(
            ["--keep-per-layer", "40,30,20,20"], ["block 0", "got -3"], id="keep more than there is"
        ),
        pytest.param(["--keep-per-layer", "5,5,5,5"], ["block 0", "0 to 18"], id="keep too few"),
        pytest.param(["--keep-per-layer", "0.9,0.9"], ["4 blocks", "got 2"], id="too few fractions"),
        pytest.param(["--keep-per-layer", "1.5,1.0,1.0,1.0"], ["keep_per_layer"], id="fraction above one"),
        pytest.param(["--keep-per-layer", "0.9,30,0.9,0.9"], ["keep_per_layer"], id="fractions and counts"),
        pytest.param(["--r", "4", "--r-per-layer", "4,4,4,4"], ["r_per_layer"], id="two schedules"),
        pytest.param(["--r", "4", "--schedule", "decreasin"], ["schedule.kind", "decreasing"], id="kind"),
        pytest.param(["--r", "4", "--align", "0"], ["align"], id="align to nothing"),
        pytest.param(["--method", "tomee"], ["method", 'Did you mean "tome"?'], id="method"),
        pytest.param(["--method-option", "margin=0.5"], ["margin", "tome"], id="option of another method"),
        pytest.param(
            ["--method-option", "margin"], ["--method-option", "NAME=NUMBER"], id="option without value"
        ),
        pytest.param(
            ["--method", "pitome", "--method-option", "margin=nan"],
            ["method_options.margin"],
            id="option NaN",
        ),
        pytest.param(["--precision", "fp8"], ["precision", "fp32, fp16, bf16"], id="precision"),
        pytest.param(["--batch", "0"], ["batch", ">= 1"], id="batch"),
        pytest.param(["--batch", "2", "--dynamic-batch"], ["batch"], id="both batches"),
        pytest.param(["--input", "int8"], ["input"], id="input"),
        pytest.param(["--tower", "image", "--tower", "sound"], ["tower"], id="tower"),
        pytest.param(["--disable-pass", "fold_scale"], ["pass", "known"], id="pass"),
        pytest.param(["--image-size", "0"], ["image_size"], id="image size"),
        pytest.param(["--name", "../up"], ["name", "folder name"], id="name"),
        pytest.param(["--seed", "-3"], ["seed"], id="seed"),
        pytest.param(["--max-drop", "-1"], ["max_drop"], id="negative drop"),
        pytest.param(["--target", "onxn"], ["target", 'Did you mean "onnx"?'], id="target"),
        pytest.param(["--target", "onnx,onnx"], ["targets", "once"], id="target twice"),
        pytest.param(["--target", ""], ["targets"], id="no target"),
        pytest.param(["--no-such-option"], ["--no-such-option"], id="option"),
        pytest.param(["--tower", "text"], ["text tower"], id="text tower of a ViT"),
        pytest.param(["--data", "nowhere"], ["nowhere", "folder of images"], id="data folder"),
        pytest.param(["--max-drop", "1"], ["max_drop", "--data"], id="drop without data"),
    ],
)
def test_impossible_options(vit_dir: Path, workplace: Path, words: list[str], facts: list[str]) -> None:
    complaint = refused(2, f"hf:{vit_dir}", *words)

    assert [fact for fact in facts if fact not in complaint] == []


def test_data_folder_without_images(vit_dir: Path, workplace: Path, tmp_path: Path) -> None:
    (tmp_path / "data" / "3").mkdir(parents=True)

    assert "no images" in refused(2, f"hf:{vit_dir}", "--data", tmp_path / "data")


def test_no_arguments_at_all() -> None:
    outcome = run()

    assert outcome.status == 2
    assert "Usage" in outcome.err
    assert outcome.out == ""


# Recipes ------------------------------------------------------------------------------------------

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        pytest.param("model: vit_digits\nshedule: {r: 4}\n", ["shedule", '"schedule"'], id="unknown key"),
        pytest.param(
            "model: vit_digits\nschedule: {rr: 4}\n", ["schedule.rr", '"r"'], id="unknown inner key"
        ),
        pytest.param(
            'model: vit_digits\nschedule: {r: "4"}\n', ["schedule.r", "integer"], id="text for a number"
        ),
        pytest.param("model: vit_digits\nschedule: {r: 4.0}\n", ["schedule.r", "integer"], id="float"),
        pytest.param("model: vit_digits\nschedule: {r: -4}\n", ["schedule.r", ">= 0"], id="negative"),
        pytest.param("model: vit_digits\nbatch: yes\n", ["batch", "integer"], id="word"),
        pytest.param("model: vit_digits\nschema_version: 99\n", ["schema version", "99"], id="newer"),
        pytest.param("schedule: {r: 4}\n", ["model", "missing"], id="no model"),
        pytest.param("- vit_digits\n", ["mapping"], id="list"),
        pytest.param("", ["mapping"], id="empty"),
        pytest.param("model: [\n", ["line"], id="not YAML"),
        pytest.param("model: vit_digits\nmodel: vit_b16\n", ["model", "twice"], id="key twice"),
        pytest.param("model: !!python/object/apply:os.system [id]\n", ["tag"], id="tag"),
        pytest.param(BOMB, ["alias"], id="bomb"),
        pytest.param("model: " + "[" * 5000, ["levels"], id="depth"),
        pytest.param("model: vit_digits\ntargets: [trtt]\n", ["targets[0]", '"trt"'], id="unknown target"),
    ],
)
def test_recipes(tmp_path: Path, workplace: Path, text: str, facts: list[str]) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")

    complaint = refused(2, "run", path)

    assert [fact for fact in ["recipe.yaml", *facts] if fact not in complaint] == []
    assert len(complaint) < 600


def test_recipe_that_is_not_there(workplace: Path) -> None:
    assert "nowhere.yaml" in refused(2, "run", "nowhere.yaml")


def test_recipe_that_is_a_folder(tmp_path: Path, workplace: Path) -> None:
    assert "not a file" in refused(2, "run", tmp_path)


# Where the bundle goes ----------------------------------------------------------------------------


def test_out_that_exists(vit_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    before = tree(tmp_path)

    assert "--force" in refused(2, f"hf:{vit_dir}", "--r", "4", "--out", out)
    assert tree(tmp_path) == before


def test_out_that_is_a_file(vit_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_text("mine", encoding="utf-8")

    assert "got a file" in refused(2, f"hf:{vit_dir}", "--out", out)
    assert "got a file" in refused(2, f"hf:{vit_dir}", "--out", out, "--force")
    assert tree(tmp_path) == {"out": b"mine"}


def test_out_below_a_file(vit_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")

    complaint = refused(2, f"hf:{vit_dir}", "--r", "4", "--out", tmp_path / "file" / "out")

    assert "cannot be written" in complaint
    assert tree(tmp_path) == {"file": b"mine"}


def test_force_replaces_nothing_but_bundles(vit_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("mine", encoding="utf-8")
    before = tree(tmp_path)

    assert "--force replaces only a bundle" in refused(2, f"hf:{vit_dir}", "--out", out, "--force")
    assert tree(tmp_path) == before


def test_out_without_permission(vit_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folder = os.mkdir

    def refuse(path: Any, *arguments: Any, **options: Any) -> None:
        if str(path).startswith(str(tmp_path)):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        make_folder(path, *arguments, **options)

    monkeypatch.setattr(os, "mkdir", refuse)

    complaint = refused(2, f"hf:{vit_dir}", "--r", "4", "--out", tmp_path / "out")

    assert "Permission denied" in complaint
    assert "--out" in complaint
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(
    ("words", "status"),
    [
        pytest.param(["export", "vit_digit"], 3, id="model"),
        pytest.param(["vit_digits", "--r", "-1"], 2, id="value"),
        pytest.param(["vit_digits", "--r", "x"], 2, id="type"),
        pytest.param(["vit_digits", "--nonsense"], 2, id="option"),
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
