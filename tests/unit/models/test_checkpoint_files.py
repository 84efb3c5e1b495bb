"""Files of weights: every usual form is read to the same tensors, and everything else is refused by its name."""

import argparse
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from exporter.errors import WeightsError
from exporter.models.checkpoint.claim import Claims, claiming
from exporter.models.checkpoint.read import Checkpoint, read_checkpoint
from exporter.models.weights import fill

State = dict[str, torch.Tensor]


class Opaque:
    """An object of the user's own, as a training script pickles beside the weights."""


@pytest.fixture(scope="module")
def state(tiny_vit: nn.Module) -> State:
    return {name: tensor.clone() for name, tensor in tiny_vit.state_dict().items()}


def prefixed(state: State, prefix: str) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def fitted(content: Any, state: State, folder: Path) -> Checkpoint:
    torch.save(content, folder / "w.pth")
    return read_checkpoint(folder / "w.pth").fitted_to(state)


def refused(path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        read_checkpoint(path)
    assert caught.value.exit_status == 3
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("suffix", ["pth", "pt", "bin", "ckpt", "pth.tar", "safetensors"])
@pytest.mark.parametrize(
    "save",
    [
        pytest.param(torch.save, id="archive"),
        pytest.param(
            lambda state, path: torch.save(state, path, _use_new_zipfile_serialization=False), id="old"
        ),
        pytest.param(save_file, id="safetensors"),
    ],
)
def test_a_file_is_told_by_its_content(
    save: Callable[[State, Path], None], suffix: str, state: State, tmp_path: Path
) -> None:
    save(state, tmp_path / f"w.{suffix}")
    checkpoint = read_checkpoint(tmp_path / f"w.{suffix}")
    torch.testing.assert_close(checkpoint.state, state, rtol=0, atol=0)
    assert checkpoint.notes == ()


@pytest.mark.parametrize(
    ("wrap", "note"),
    [
        pytest.param(lambda s: {"state_dict": s}, '"state_dict"', id="state_dict"),
        pytest.param(lambda s: {"model": s, "epoch": 3}, "left out: epoch", id="model with epoch"),
        pytest.param(
            lambda s: {"model_state_dict": s, "loss": torch.ones(())}, "left out: loss", id="loss tensor"
        ),
        pytest.param(lambda s: {"module": s}, '"module"', id="module"),
        pytest.param(lambda s: {"net": s}, '"net"', id="net"),
        pytest.param(lambda s: {"model": {"state_dict": s}}, '"state_dict"', id="twice"),
        pytest.param(
            lambda s: {"state_dict": s, "optimizer": {"state": {0: {"step": 1}}}},
            "left out: optimizer",
            id="optimizer",
        ),
        pytest.param(
            lambda s: {"state_dict": s, "args": argparse.Namespace(lr=0.1)},
            "left out: args",
            id="timm's training",
        ),
        pytest.param(lambda s: {"model": s, "a\nnotes: b": 1}, r"left out: a\nnotes: b", id="a forged line"),
        pytest.param(lambda s: {"model": s, "ema": {"decay": 0.9}}, '"model"', id="an ema without weights"),
        pytest.param(lambda s: prefixed(s, "module."), 'prefix "module."', id="DataParallel"),
        pytest.param(lambda s: prefixed(s, "_orig_mod."), 'prefix "_orig_mod."', id="torch.compile"),
        pytest.param(lambda s: prefixed(s, "module._orig_mod."), 'prefix "module._orig_mod."', id="both"),
        pytest.param(lambda s: prefixed(s, "model."), 'prefix "model."', id="model."),
        pytest.param(lambda s: prefixed(s, "backbone."), 'prefix "backbone."', id="backbone."),
        pytest.param(lambda s: prefixed(s, "encoder."), 'prefix "encoder."', id="encoder."),
        pytest.param(lambda s: prefixed(s, "net."), 'prefix "net."', id="net."),
        pytest.param(lambda s: {"state_dict": prefixed(s, "module.model.")}, '"module.model."', id="nested"),
        pytest.param(
            lambda s: prefixed(s, "module.") | {"n_averaged": torch.tensor(3)},
            '"n_averaged"',
            id="AveragedModel",
        ),
        pytest.param(
            lambda s: {
                "state_dict": prefixed(s, "model."),
                "pytorch-lightning_version": "2.4.0",
                "hyper_parameters": {"lr": 0.1},
            },
            "left out: pytorch-lightning_version, hyper_parameters",
            id="Lightning",
        ),
    ],
)
def test_wrappers_and_prefixes_are_taken_off_and_named(
    wrap: Callable[[State], Any], note: str, state: State, tmp_path: Path
) -> None:
    checkpoint = fitted(wrap(state), state, tmp_path)
    torch.testing.assert_close(checkpoint.state, state, rtol=0, atol=0)
    assert note in "; ".join(checkpoint.notes)


@pytest.mark.parametrize("key", ["state_dict_ema", "model_ema", "ema"])
def test_averaged_weights_come_first_as_in_timms_loader(key: str, state: State, tmp_path: Path) -> None:
    averaged = {name: tensor + 1 for name, tensor in state.items()}
    checkpoint = fitted({"state_dict": state, key: averaged}, state, tmp_path)
    torch.testing.assert_close(checkpoint.state, averaged, rtol=0, atol=0)
    assert checkpoint.notes == (f'weights are those under "{key}" in the file; left out: state_dict',)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_claimed_tensors_are_kept_apart_from_the_model_s(prefix: str, state: State, tmp_path: Path) -> None:
    parts = {"score_predictor.0.weight": torch.ones(3), "score_predictor.1.weight": torch.zeros(3)}

    with claiming(Claims(method="dynamicvit", prefix="score_predictor")) as claimed:
        checkpoint = fitted({"model": prefixed(state | parts, prefix)}, state, tmp_path)

    assert checkpoint.state.keys() == state.keys()
    assert claimed.keys() == parts.keys()
    assert len(fitted(state | parts, state, tmp_path).state) == len(state) + 2


def test_names_that_a_model_itself_begins_with_stay(tmp_path: Path) -> None:
    state = {"encoder.layers.weight": torch.ones(2), "encoder.norm.weight": torch.ones(2)}
    assert fitted(state, state, tmp_path).state.keys() == state.keys()


def test_a_second_part_beside_the_prefix_is_refused_by_name(state: State, tmp_path: Path) -> None:
    content = prefixed(state, "backbone.") | {"criterion.weight": torch.ones(2), "head2.bias": torch.ones(2)}
    with pytest.raises(WeightsError, match=r'"backbone\.".*criterion\.weight, head2\.bias'):
        fitted(content, state, tmp_path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_other_float_types_become_fp32(dtype: torch.dtype, tmp_path: Path) -> None:
    torch.save(
        {"a": torch.ones(2, dtype=dtype), "steps": torch.ones(1, dtype=torch.int64)}, tmp_path / "w.pt"
    )
    read = read_checkpoint(tmp_path / "w.pt").state
    assert (read["a"].dtype, read["steps"].dtype) == (torch.float32, torch.int64)


def test_parameters_come_back_as_plain_tensors(tmp_path: Path) -> None:
    torch.save({"a": nn.Parameter(torch.ones(2))}, tmp_path / "w.pt")
    assert not read_checkpoint(tmp_path / "w.pt").state["a"].requires_grad


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(b"", "empty", id="empty"),
        pytest.param(
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "git lfs pull", id="LFS"
        ),
        pytest.param(b"\n<!DOCTYPE html><html></html>", "web page", id="page"),
        pytest.param(b'{"error": "not found"}', "JSON text", id="JSON"),
        pytest.param(b"\x89HDF\r\n\x1a\n" + bytes(99), "HDF5", id="HDF5"),
        pytest.param(b"GGUF\x03\0\0\0" + bytes(99), "GGUF", id="GGUF"),
        pytest.param(b"\x1f\x8b\x08" + bytes(99), "compressed", id="gzip"),
        pytest.param(b"PK\x03\x04" + bytes(99), "cut short", id="broken archive"),
        pytest.param(b"\x80\x02}q\x00.", "damaged", id="a pickle of something"),
        pytest.param(bytes(range(256)) * 9, "damaged", id="noise"),
    ],
)
def test_what_is_no_state_dict_is_refused_by_its_name(content: bytes, expected: str, tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    assert expected in refused(tmp_path / "w.pth")


@pytest.mark.parametrize("save", [torch.save, save_file], ids=["archive", "safetensors"])
@pytest.mark.parametrize("kept", [0.1, 0.9])
def test_a_file_that_was_cut_short_is_damaged(
    save: Callable[[State, Path], None], kept: float, state: State, tmp_path: Path
) -> None:
    save(state, tmp_path / "w.pth")
    content = (tmp_path / "w.pth").read_bytes()
    (tmp_path / "w.pth").write_bytes(content[: int(len(content) * kept)])
    assert "damaged" in refused(tmp_path / "w.pth")


@pytest.mark.parametrize("archive", [True, False], ids=["archive", "old"])
def test_a_pickled_model_is_refused_with_what_to_save(
    archive: bool, tiny_vit: nn.Module, tmp_path: Path
) -> None:
    torch.save(tiny_vit, tmp_path / "w.pt", _use_new_zipfile_serialization=archive)
    message = refused(tmp_path / "w.pt")
    assert "whole model (torch.save(model))" in message
    assert "timm." in message
    assert "save_file(model.state_dict()" in message


@pytest.mark.parametrize("archive", [True, False], ids=["archive", "old"])
def test_objects_beside_the_weights_are_refused_by_class(archive: bool, state: State, tmp_path: Path) -> None:
    content = {"state_dict": state, "hyper_parameters": {"config": Opaque()}}
    torch.save(content, tmp_path / "w.ckpt", _use_new_zipfile_serialization=archive)
    message = refused(tmp_path / "w.ckpt")
    assert "holds Python objects" in message
    assert "Opaque" in message


def test_nothing_in_a_file_is_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return Path.touch, (str(tmp_path / "ran"),)

    torch.save({"state_dict": {"a": torch.ones(1)}, "x": Evil()}, tmp_path / "w.pt")
    assert "Python objects" in refused(tmp_path / "w.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.filterwarnings("ignore")
def test_torchscript_is_refused(tmp_path: Path) -> None:
    torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "w.pt")
    assert "TorchScript" in refused(tmp_path / "w.pt")


def test_a_program_is_refused_as_weights(tiny_pt2: Path) -> None:
    assert "give it as the model" in refused(tiny_pt2)


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        pytest.param({"a/b.npy": b""}, "NumPy", id="npz"),
        pytest.param({"weights.pth": b""}, "zip archive", id="a zipped file"),
    ],
)
def test_other_archives_are_refused(members: dict[str, bytes], expected: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    assert expected in refused(tmp_path / "w.zip")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param({"epoch": 3, "best": 0.9}, "its keys are epoch, best", id="no weights"),
        pytest.param([torch.ones(1)], "holds a list", id="a list"),
        pytest.param(torch.ones(1), "holds a Tensor", id="a tensor"),
        pytest.param({"a": torch.ones(1), "b": "text"}, "not a tensor: b", id="text among tensors"),
        pytest.param({1: torch.ones(1), "a": torch.ones(1)}, "not a tensor: 1", id="a number as name"),
        pytest.param({"a.lora_A.weight": torch.ones(1)}, "merge_and_unload", id="LoRA"),
        pytest.param({"base_model.model.a.weight": torch.ones(1)}, "merge_and_unload", id="PEFT"),
        pytest.param({"a.weight": torch.ones(2, 2, dtype=torch.int8)}, "type int8", id="int8"),
        pytest.param({"a.weight": torch.ones(2, 2, dtype=torch.uint8)}, "type uint8", id="4 bits"),
        pytest.param({"a.weight": torch.ones(2).to(torch.float8_e4m3fn)}, "float8_e4m3fn", id="float8"),
        pytest.param({"a.SCB": torch.ones(2)}, "quantised", id="bitsandbytes"),
        pytest.param({"a.qweight": torch.ones(2, dtype=torch.int32)}, "quantised", id="GPTQ"),
        pytest.param({"a": torch.ones(2, dtype=torch.complex64)}, "complex", id="complex"),
        pytest.param({"a": torch.ones(2, 2).to_sparse()}, "sparse", id="sparse"),
        pytest.param({"a": torch.ones(2, device="meta")}, "without values", id="meta"),
        pytest.param({"\ud800\n\x1b": "text", "a": torch.ones(1)}, r"\ud800\n\x1b", id="unprintable"),
        pytest.param({"k" * 5000: "text", "a": torch.ones(1)}, "kkk...", id="a long name is cut"),
    ],
)
@pytest.mark.filterwarnings("ignore:Validating sparse")
def test_content_that_is_no_plain_state_dict_is_refused(content: Any, expected: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.pt")
    message = refused(tmp_path / "w.pt")
    assert expected in message
    assert len(message) < 600 + len(str(tmp_path))


def test_an_adapters_file_is_refused_by_its_name(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "adapter_model.safetensors")
    assert "merge_and_unload" in refused(tmp_path / "adapter_model.safetensors")


def shards(state: State, folder: Path) -> list[Path]:
    """Write a state dict as two shards with their index."""
    names = sorted(state)
    files = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    parts = [names[: len(names) // 2], names[len(names) // 2 :]]
    for file, part in zip(files, parts, strict=True):
        save_file({name: state[name] for name in part}, folder / file)
    weight_map = {name: file for file, part in zip(files, parts, strict=True) for name in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return [folder / file for file in (*files, "model.safetensors.index.json")]


@pytest.mark.parametrize("which", [0, 1, 2], ids=["first shard", "second shard", "index"])
def test_shards_are_read_together(which: int, state: State, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(shards(state, tmp_path)[which])
    torch.testing.assert_close(checkpoint.state, state, rtol=0, atol=0)
    assert "2 shards" in checkpoint.notes[0]


@pytest.mark.parametrize("which", [0, 2], ids=["shard", "index"])
def test_a_missing_shard_is_named(which: int, state: State, tmp_path: Path) -> None:
    files = shards(state, tmp_path)
    files[1].unlink()
    assert files[1].name in refused(files[which])


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "{}",
        '{"weight_map": {}}',
        '{"weight_map": {"a": "../w.safetensors"}}',
        '{"weight_map": {"a": 3}}',
    ],
)
def test_a_broken_index_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(text)
    assert refused(tmp_path / "model.safetensors.index.json").startswith("index of shards ")


def test_a_module_computes_the_same_from_a_wrapped_file(
    tiny_vit: nn.Module, state: State, tmp_path: Path
) -> None:
    import timm

    torch.save({"state_dict": prefixed(state, "module.")}, tmp_path / "w.pth.tar")

    def build() -> nn.Module:
        return timm.models.VisionTransformer(
            img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, num_classes=5
        )

    images = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 3, 32, 32), dtype=np.float32))
    with torch.no_grad():
        torch.testing.assert_close(
            fill(build, read_checkpoint(tmp_path / "w.pth.tar").fitted_to(state).state, "w.pth.tar")(images),
            tiny_vit(images),
            rtol=1e-5,
            atol=1e-5,
        )
        timms = build()
        timm.models.load_checkpoint(timms, str(tmp_path / "w.pth.tar"))
        torch.testing.assert_close(timms.eval()(images), tiny_vit(images), rtol=1e-5, atol=1e-5)


def test_a_file_that_cannot_be_opened_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "w.pt").write_bytes(b"x")

    def denied(*_args: object, **_kwargs: object) -> SimpleNamespace:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    assert "Permission denied" in refused(tmp_path / "w.pt")
