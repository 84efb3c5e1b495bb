"""What is prepared for another machine, and its script: run here for the CPU, and over a pretended GPU."""

import ast
import json
import os
import runpy
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils import cpp_extension

from exporter.errors import BundleError, ParityError
from exporter.rewrite import RewrittenProgram
from exporter.signature import Signature, TensorSpec
from exporter.targets import EmitRequest, find_target, open_runner
from exporter.targets.aoti.options import AotiOptions
from exporter.targets.aoti.prepare import (
    SCRIPT,
    prepare,
    requirements,
    save_program,
    script_recipe,
)
from exporter.targets.aoti.saved_program import PROGRAM
from exporter.targets.aoti.target import TARGET
from exporter.targets.build_script import write_script
from exporter.validation import TOLERANCES, require, run_eager, verify
from tests.support.compiled import QUICKER, REQUESTS, captured_family
from tests.support.families import family
from tests.support.tiny_vit import request_of

ROOT = Path(__file__).resolve().parents[3]
NAME = "aoti-program"
IMAGES = np.array([[1.0, 2.0, 8.0], [3.0, -4.0, 0.5]], np.float32)
LOGITS = IMAGES * 2 + 1
SIGNATURE = Signature(
    inputs=(TensorSpec(name="images", dtype="float32", shape=(2, 3)),),
    outputs=(TensorSpec(name="logits", dtype="float32", shape=(2, 3)),),
)


class Small(nn.Module):
    """One output, and a match."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return images * 2 + 1, images.argmax(-1)


def bundle_of(folder: Path, options: AotiOptions, *, kernels: bool = False) -> Path:
    """What a bundle holds once the package of `Small` is prepared in it."""
    folder.mkdir()
    save_program(torch.export.export(Small(), (torch.from_numpy(IMAGES),)), folder / PROGRAM)
    request = EmitRequest(signature=SIGNATURE, options=options, metadata={"name": "small"})
    recipe = script_recipe(NAME, request, folder / PROGRAM) | {"kernels": kernels}
    needs = requirements(options, kernels=kernels)
    write_script(folder, ROOT / "exporter/targets/aoti" / SCRIPT, recipe, needs)
    np.savez(folder / "sample.npz", images=IMAGES, logits=LOGITS)
    proof = {NAME: {"tolerances": asdict(TOLERANCES["fp32"])}}
    (folder / "parity.json").write_text(json.dumps(proof), encoding="utf-8")
    return folder


def run_script(folder: Path, out: Path, patched: pytest.MonkeyPatch) -> int:
    """Run it in this process; its exit status."""
    patched.setattr(sys, "argv", [SCRIPT, "--out", str(out)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(folder / SCRIPT), run_name="__main__")
    status = ended.value.code
    assert isinstance(status, int)
    return status


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A prepared bundle, and what its script made of it on this machine's CPU: compiled once."""
    folder = tmp_path_factory.mktemp("prepared")
    bundle = bundle_of(folder / "bundle", AotiOptions(instructions="avx2"))
    with pytest.MonkeyPatch.context() as patched, torch._inductor.config.patch(QUICKER):
        patched.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder / "cache"))
        assert run_script(bundle, folder / "engine", patched) == 0
    return bundle, folder / "engine"


def test_script_compiles_a_package_that_the_runner_opens(compiled: tuple[Path, Path]) -> None:
    _, made = compiled
    runner = open_runner("aoti", made / "model_aoti.pt2", signature=SIGNATURE)
    others = np.ones((2, 3), np.float32)

    np.testing.assert_array_equal(runner(IMAGES)["logits"], LOGITS)
    np.testing.assert_array_equal(runner(others)["logits"], others * 3)
    assert sorted(path.name for path in made.iterdir()) == ["model_aoti.json", "model_aoti.pt2"]
    identity = json.loads((made / "model_aoti.json").read_text(encoding="utf-8"))["identity"]
    assert (identity["torch"], identity["device"]) == (torch.__version__, "cpu")


def test_script_says_so_where_the_package_computes_something_else(
    compiled: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bundle = shutil.copytree(compiled[0], tmp_path / "bundle")
    np.savez(bundle / "sample.npz", images=IMAGES, logits=LOGITS * 1.001)
    monkeypatch.setattr(
        torch._inductor,
        "aoti_compile_and_package",
        lambda program, *, package_path, inductor_configs: shutil.copy(
            compiled[1] / "model_aoti.pt2", package_path
        ),
    )

    assert run_script(bundle, tmp_path / "engine", monkeypatch) == 5

    said = capsys.readouterr().err
    assert said.startswith("error: not what eager PyTorch computes: logits: max_abs_error ")
    assert said.count("\n") == 1
    assert [path.name for path in (tmp_path / "engine").iterdir()] == ["unproven.pt2"]


def damage_program(bundle: Path) -> None:
    (bundle / PROGRAM).write_bytes((bundle / PROGRAM).read_bytes()[:-1])


def lose_sample(bundle: Path) -> None:
    (bundle / "sample.npz").unlink()


@pytest.mark.parametrize(
    ("change", "out", "status", "said"),
    [
        pytest.param(damage_program, "engine", 8, f"{PROGRAM}: expected sha256 ", id="program"),
        pytest.param(lose_sample, "engine", 8, "its sample or parity.json cannot be read", id="sample"),
        pytest.param(lambda _: None, "bundle/engine", 2, "is in the bundle, which is sealed", id="inside"),
        pytest.param(lambda _: None, "engine", 7, "for a GPU, and PyTorch", id="no GPU"),
    ],
)
def test_script_ends_in_one_line_where_it_cannot_work(
    change: Any,
    out: str,
    status: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    bundle = bundle_of(tmp_path / "bundle", AotiOptions(device="cuda"))
    change(bundle)

    assert run_script(bundle, tmp_path / out, monkeypatch) == status

    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and said in line
    assert not (tmp_path / out).exists()


class Loader:
    """PyTorch's loader of a package, which computes as it should."""

    def __init__(self, *given: object) -> None:
        self.given = given

    def boxed_run(self, inputs: list[Tensor]) -> list[Tensor]:
        return [inputs.pop() * 2 + 1]


def test_script_compiles_for_the_gpu_that_it_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The GPU is pretended: what is asked of PyTorch there, in order."""
    seen: dict[str, Any] = {}

    def compile_package(program: Any, *, package_path: str, inductor_configs: dict[str, Any]) -> None:
        seen.update(program=program, **inductor_configs)
        Path(package_path).write_bytes(b"package")

    facts: dict[str, Any] = {
        "is_available": True,
        "current_device": 1,
        "get_device_capability": (9, 0),
        "get_device_name": "NVIDIA H100",
        "synchronize": None,
    }
    for name, fact in facts.items():
        monkeypatch.setattr(torch.cuda, name, lambda fact=fact: fact)
    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", compile_package)
    monkeypatch.setattr(torch._C._aoti, "AOTIModelPackageLoader", Loader)
    monkeypatch.setattr("torch.export.passes.move_to_device_pass", lambda program, device: device)
    monkeypatch.setattr(Tensor, "to", lambda tensor, device: tensor)
    monkeypatch.setitem(sys.modules, "exporter.kernels", SimpleNamespace())
    monkeypatch.setattr(cpp_extension, "CUDA_HOME", None)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch, "__file__", str(tmp_path / "torch/__init__.py"))
    for name in ("cuda.h", "crt", "nv"):
        (tmp_path / "nvidia/cu13/include" / name).mkdir(parents=True)
    bundle = bundle_of(tmp_path / "bundle", AotiOptions(device="cuda"), kernels=True)

    assert run_script(bundle, tmp_path / "engine", monkeypatch) == 0

    needs = (bundle / "requirements_aoti.txt").read_text(encoding="utf-8").splitlines()
    assert needs[2:] == ["cuda-toolkit[cccl,crt]", "exporter[compiler]"]
    assert str(tmp_path / "nvidia/cu13") == cpp_extension.CUDA_HOME
    assert seen["program"] == "cuda:1"
    assert seen["freezing"] is False
    metadata = seen["aot_inductor.metadata"]
    assert (metadata["name"], metadata["exporter_torch"]) == ("small", torch.__version__)
    record = json.loads((tmp_path / "engine/model_aoti.json").read_text(encoding="utf-8"))
    assert record["identity"]["compute_capability"] == "9.0"


def test_script_needs_this_package_for_its_kernels_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = bundle_of(tmp_path / "bundle", AotiOptions(), kernels=True)
    monkeypatch.setitem(sys.modules, "exporter.kernels", None)

    assert run_script(bundle, tmp_path / "engine", monkeypatch) == 7

    assert capsys.readouterr().err.endswith("; pip install -r requirements_aoti.txt\n")
    script = ast.parse((bundle / SCRIPT).read_text(encoding="utf-8"))
    named = {node.module for node in ast.walk(script) if isinstance(node, ast.ImportFrom)}
    named |= {each.name for node in ast.walk(script) if isinstance(node, ast.Import) for each in node.names}
    assert {str(name).split(".")[0] for name in named} - set(sys.stdlib_module_names) == {"numpy"}


def test_program_with_kernels_of_this_package_is_verified_and_opened_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = request_of(AotiOptions(device="cuda"))
    captured = captured_family("timm_vit")
    program = captured.compile(REQUESTS["constant"])
    fused = captured.compile(REQUESTS["constant"], forms=TARGET.default_forms(request.options))
    references = run_eager(program, {"images": {"images": family("timm_vit").images(2).numpy()}})

    artifact = prepare(TARGET, fused, request, tmp_path)

    assert verify(program, artifact, references, TOLERANCES["fp32"]).shortfalls == []
    needs = (tmp_path / "requirements_aoti.txt").read_text(encoding="utf-8").splitlines()
    assert needs[-1] == "exporter[compiler]"
    runner = open_runner(NAME, tmp_path / PROGRAM, signature=request.signature)
    monkeypatch.setitem(sys.modules, "exporter.kernels", None)
    with pytest.raises(ModuleNotFoundError, match="exporter.kernels"):
        runner.load()


def test_prepared_program_is_verified_here_and_holds_no_path_of_this_machine(
    program: RewrittenProgram, tmp_path: Path
) -> None:
    images = family("timm_vit").images(2)
    references = run_eager(program, {"images": {"images": images.numpy()}})

    artifact = prepare(TARGET, program, request_of(AotiOptions(device="cuda")), tmp_path)

    result = verify(program, artifact, references, TOLERANCES["fp32"])
    assert result.shortfalls == []
    assert result.match_agreement == (1.0,) * len(program.merging_blocks)
    assert artifact.target == NAME and find_target(NAME).name == "aoti"
    assert sorted(path.name for path in tmp_path.iterdir()) == [SCRIPT, PROGRAM, "requirements_aoti.txt"]
    assert "exporter" not in (tmp_path / "requirements_aoti.txt").read_text(encoding="utf-8")
    for path in tmp_path.iterdir():
        content = path.read_bytes()
        places = (tmp_path, Path(torch.__file__).parents[1], ROOT, Path.home())
        assert [place for place in places if os.fsencode(place) in content] == []


def test_only_parameters_that_are_read_are_saved(tmp_path: Path) -> None:
    typed = captured_family("timm_vit").compile(REQUESTS["constant"], precision="fp16")

    prepare(TARGET, typed, request_of(AotiOptions(device="cuda")), tmp_path)

    saved = torch.export.load(tmp_path / PROGRAM).state_dict
    given = captured_family("timm_vit").program.graph_module.state_dict()
    assert {each.dtype for name, each in saved.items() if "mlp" in name} == {torch.float16}
    assert sum(each.nbytes for each in saved.values()) < 0.6 * sum(each.nbytes for each in given.values())


def test_another_program_is_not_verified(program: RewrittenProgram, tmp_path: Path) -> None:
    references = run_eager(program, {"images": {"images": family("timm_vit").images(2).numpy()}})
    artifact = prepare(TARGET, program, request_of(AotiOptions(device="cuda")), tmp_path)
    changed = torch.export.load(tmp_path / PROGRAM)
    for weight in changed.state_dict.values():
        weight.data.mul_(1.01)
    torch.export.save(changed, tmp_path / PROGRAM)

    with pytest.raises(ParityError, match=f"parity: target {NAME}"):
        require(verify(program, artifact, references, TOLERANCES["fp32"]), NAME, "fp32")


def test_damaged_program_is_a_damaged_bundle(tmp_path: Path) -> None:
    (tmp_path / PROGRAM).write_bytes(b"not a program")

    with pytest.raises(BundleError, match=PROGRAM):
        open_runner(NAME, tmp_path / PROGRAM, signature=SIGNATURE).load()
