"""What AOTInductor's target refuses, each in one line, before any native code is loaded."""

import json
import os
import platform
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils import cpp_extension

from exporter.errors import BundleError, TargetUnavailableError, UsageError
from exporter.rewrite import RewrittenProgram
from exporter.signature import Signature, TensorSpec
from exporter.targets import target
from exporter.targets.aoti import compile as aoti_compile
from exporter.targets.aoti import machine
from exporter.targets.aoti.compile import CACHES, compile_package
from exporter.targets.aoti.cuda_home import cuda_home
from exporter.targets.aoti.options import AotiOptions
from exporter.targets.aoti.runner import AotiRunner
from exporter.targets.aoti.target import TARGET
from exporter.targets.results import first_results
from tests.support.families import IMAGE_SIZE, family

INPUT = TensorSpec(name="images", dtype="float32", shape=(2, 3, IMAGE_SIZE, IMAGE_SIZE))
OUTPUTS = (TensorSpec(name="logits", dtype="float32", shape=(2, 10)),)
SIGNATURE = Signature(inputs=(INPUT,), outputs=OUTPUTS)


def package(folder: Path, **differing: str) -> AotiRunner:
    """An archive with the metadata of a package for this machine, but for what differs, and no code that loads."""
    metadata = {
        "AOTI_PLATFORM": sys.platform,
        "AOTI_MACHINE": platform.machine(),
        "AOTI_DEVICE_KEY": "cpu",
        "AOTI_COMPUTE_CAPABILITY": "",
        **machine.demands("native", torch.__version__),
        **differing,
    }
    path = folder / "model_aoti.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model_aoti/data/aotinductor/model/x.wrapper_metadata.json", json.dumps(metadata))
        archive.writestr("model_aoti/data/aotinductor/model/x.wrapper.so", b"not a library")
        archive.writestr("model_aoti/archive_format", "pt2")
        archive.writestr("model_aoti/archive_version", "0")
    return AotiRunner(path=path, signature=SIGNATURE)


@pytest.mark.parametrize(
    ("differing", "complaint"),
    [
        pytest.param({"AOTI_MACHINE": "sparc"}, f"compiled for {sys.platform}/sparc", id="processor family"),
        pytest.param({"AOTI_PLATFORM": "win32"}, "compiled for win32", id="operating system"),
        pytest.param({machine.TORCH: "2.3.1+cpu"}, "PyTorch 2.3.1", id="PyTorch"),
        pytest.param({machine.INSTRUCTIONS: "avx2 avx9000"}, "a CPU with avx9000", id="instructions"),
        pytest.param({"AOTI_DEVICE_KEY": "cuda"}, "compiled for cuda, got device cpu", id="device"),
    ],
)
def test_package_for_another_machine_is_refused_unloaded(
    tmp_path: Path, differing: dict[str, str], complaint: str
) -> None:
    with pytest.raises(TargetUnavailableError, match=complaint) as refused:
        package(tmp_path, **differing).load()

    assert "export again" in str(refused.value)


def test_temporary_folder_without_execution_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError("Error in dlopen: /tmp/x/x.so: failed to map segment from shared object")

    monkeypatch.setattr(torch._C._aoti, "AOTIModelPackageLoader", fail)
    with pytest.raises(
        TargetUnavailableError, match=f"{tempfile.gettempdir()} allows no execution.*set TMPDIR"
    ):
        package(tmp_path).load()


def test_package_of_another_patch_release_of_pytorch_is_loaded(tmp_path: Path) -> None:
    major, minor = torch.__version__.split(".")[:2]

    with pytest.raises(BundleError, match="cannot load it"):  # it gets as far as the library, which is none
        package(tmp_path, **{machine.TORCH: f"{major}.{minor}.99+cpu"}).load()


@pytest.mark.parametrize("content", [None, b"", b"not an archive"], ids=["missing", "empty", "garbage"])
def test_damaged_package_is_a_damaged_bundle(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "model_aoti.pt2"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(BundleError, match="expected an AOTInductor package"):
        AotiRunner(path=path, signature=SIGNATURE).load()


def test_archive_without_metadata_is_no_package(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "other.pt2", "w") as archive:
        archive.writestr("other/archive_format", "pt2")

    with pytest.raises(BundleError, match="found no wrapper_metadata.json"):
        AotiRunner(path=tmp_path / "other.pt2", signature=SIGNATURE).load()


def test_kernels_for_another_gpu_are_refused() -> None:
    machine.check_gpu_fits({"AOTI_COMPUTE_CAPABILITY": "90"}, "model_aoti.pt2", "90")

    with pytest.raises(
        TargetUnavailableError, match="compute capability 90, and this is compute capability 80"
    ):
        machine.check_gpu_fits({"AOTI_COMPUTE_CAPABILITY": "90"}, "model_aoti.pt2", "80")


def test_portable_package_asks_for_avx2_only() -> None:
    assert machine.demands("avx2", "2.14.1")[machine.INSTRUCTIONS].split() == ["avx", "avx2", "f16c", "fma"]


def test_missing_compiler_is_named_with_what_to_install() -> None:
    with (
        torch._inductor.config.patch({"cpp.cxx": (None, "no-such-compiler")}),
        pytest.raises(TargetUnavailableError, match="apt-get install g\\+\\+"),
    ):
        TARGET.check_available()


def test_failing_compiler_is_one_line_and_leaves_nothing(
    tmp_path: Path, program: RewrittenProgram, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, str] = {}

    def fail(*given: Any, **named: Any) -> str:
        seen.update({name: os.environ[name] for name in CACHES})
        raise RuntimeError(
            "C++ compile error\n\nCommand:\ng++ x.cpp\n\nOutput:\nx.cpp:3: error: no such thing"
        )

    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", fail)
    monkeypatch.setenv(CACHES[0], "as it was")
    monkeypatch.delenv(CACHES[1], raising=False)

    with pytest.raises(TargetUnavailableError, match="x.cpp:3: error: no such thing") as failed:
        compile_package(program.exported, 1, tmp_path / "model_aoti.pt2", AotiOptions(), {})

    assert "\n" not in str(failed.value)
    assert list(tmp_path.iterdir()) == []
    assert os.environ[CACHES[0]] == "as it was" and CACHES[1] not in os.environ
    assert not any(Path(folder).exists() for folder in seen.values()) and len(seen) == len(CACHES)


def test_full_disk_is_reported_as_such(
    tmp_path: Path, program: RewrittenProgram, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: Any, **named: Any) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", fail)

    with pytest.raises(OSError, match="No space left"):
        compile_package(program.exported, 1, tmp_path / "model_aoti.pt2", AotiOptions(), {})


def test_what_pytorch_does_not_find_is_no_matter_of_the_disk(
    tmp_path: Path, program: RewrittenProgram, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: Any, **named: Any) -> str:
        raise OSError("CUDA_HOME environment variable is not set.")

    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", fail)

    with pytest.raises(TargetUnavailableError, match="cannot compile this program here: CUDA_HOME"):
        compile_package(program.exported, 1, tmp_path / "model_aoti.pt2", AotiOptions(), {})


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param(AotiOptions(), {"freezing": True, "max_autotune": False}, id="default"),
        pytest.param(
            AotiOptions(max_autotune=True),
            {"max_autotune": True},
            id="tuned",
        ),
        pytest.param(
            AotiOptions(instructions="avx2"),
            {"cpp.simdlen": 256, "cpp.march": "", "freezing": False},
            id="portable",
        ),
    ],
)
def test_options_reach_the_compiler(
    tmp_path: Path,
    program: RewrittenProgram,
    monkeypatch: pytest.MonkeyPatch,
    options: AotiOptions,
    expected: dict[str, Any],
) -> None:
    given: dict[str, Any] = {}

    def record(exported: Any, *, package_path: str, inductor_configs: dict[str, Any]) -> str:
        given.update(inductor_configs)
        with zipfile.ZipFile(package_path, "w"):
            return package_path

    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", record)

    compile_package(program.exported, 1, tmp_path / "model_aoti.pt2", options, {"name": "x"})

    assert expected.items() <= given.items()
    assert set(given) <= aoti_compile.known_settings()
    assert given["aot_inductor.metadata"]["name"] == "x"


def test_setting_that_this_pytorch_lacks_is_named(
    tmp_path: Path, program: RewrittenProgram, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = aoti_compile.known_settings() - {"cpp.march"}
    monkeypatch.setattr(aoti_compile, "known_settings", lambda: older)

    with pytest.raises(TargetUnavailableError, match="has no cpp.march"):
        compile_package(
            program.exported, 1, tmp_path / "model_aoti.pt2", AotiOptions(instructions="avx2"), {}
        )


def test_gpu_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    with pytest.raises(TargetUnavailableError, match="aoti.device is cuda, and PyTorch .* sees no GPU here"):
        target("aoti", options=AotiOptions(device="cuda"))


def put(folder: Path, *headers: str) -> None:
    for header in headers:
        (folder / header).parent.mkdir(parents=True, exist_ok=True)
        (folder / header).touch()


def test_headers_of_cuda_are_a_toolkits_or_those_beside_pytorch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    brought = tmp_path / "nvidia/cu13"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch, "__file__", str(tmp_path / "torch/__init__.py"))
    monkeypatch.setattr(cpp_extension, "CUDA_HOME", "/a/toolkit")
    assert target("aoti", options=AotiOptions(device="cuda")).name == "aoti"
    with cuda_home():
        assert cpp_extension.CUDA_HOME == "/a/toolkit"

    monkeypatch.setattr(cpp_extension, "CUDA_HOME", None)
    put(brought, "include/cuda.h")
    with pytest.raises(TargetUnavailableError, match=r"pip install \"cuda-toolkit\[cccl,crt\]\""):
        target("aoti", options=AotiOptions(device="cuda"))

    put(brought, "include/crt/host_defines.h", "include/nv/target")
    with cuda_home():
        assert str(brought) == cpp_extension.CUDA_HOME
    assert cpp_extension.CUDA_HOME is None


def test_instructions_of_a_cpu_are_refused_for_a_gpu() -> None:
    with pytest.raises(UsageError, match="aoti.instructions: expected native on a GPU, got avx2"):
        AotiOptions(device="cuda", instructions="avx2")


def test_call_on_a_gpu_needs_a_package_for_one(tmp_path: Path) -> None:
    with pytest.raises(TargetUnavailableError, match="compiled for the CPU"):
        package(tmp_path).enqueue(np.zeros((2, 3, IMAGE_SIZE, IMAGE_SIZE), np.float32), cuda_graph=False)


def test_program_cut_down_to_its_outputs_computes_the_same(program: RewrittenProgram) -> None:
    nodes = len(program.exported.graph.nodes)
    given = family("timm_vit").images(2)

    short = first_results(program.exported, 1)

    (output,) = short.module(check_guards=False)(given)
    assert torch.equal(output, program(given)[0])
    assert len(short.graph.nodes) < nodes == len(program.exported.graph.nodes)
    assert len(short.graph_signature.user_outputs) == 1 < len(program.exported.graph_signature.user_outputs)
