"""Several targets of one recipe: each in its own form, and one that fails does not stop the others."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

import exporter
from exporter.errors import ExportError, ParityError, TargetUnavailableError, UnsupportedGraphError
from exporter.forms import Forms, Precision
from exporter.models import ModelRequest
from exporter.pipeline import build, plan_export
from exporter.pipeline.plan import Planned
from exporter.recipe import Recipe
from exporter.rewrite import RewrittenProgram
from exporter.schedule import ScheduleRequest
from exporter.targets import Array, Artifact, EmitRequest
from exporter.targets.aoti.options import AotiOptions
from exporter.targets.onnx.options import OnnxOptions
from tests.support.fake_runner import FakeRunner
from tests.support.families import family

Broken = Callable[[Array], Array]


def eager_runner(program: RewrittenProgram, names: Sequence[str], broken: Broken | None = None) -> FakeRunner:
    """Runs the program in eager PyTorch, and breaks its first output if it is told to."""

    def compute(images: Array) -> dict[str, Array]:
        first, *others = [each.numpy() for each in program(torch.from_numpy(images))[: len(names)]]
        return dict(zip(names, [broken(first) if broken else first, *others], strict=True))

    return FakeRunner(compute=compute)


@dataclass(kw_only=True)
class EagerTarget:
    """A target whose engine is eager PyTorch: quick, and as right or wrong as it is told to be.

    Attributes:
        missing: why the engine is not here.
        refusal: raised after a file was written.
        requests: that it was asked for.
    """

    name: str
    precisions: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8")
    options: type = OnnxOptions
    forms: Forms = field(default_factory=Forms)
    missing: str | None = None
    refusal: ExportError | None = None
    broken: Broken | None = None
    requests: list[EmitRequest] = field(default_factory=list)
    programs: list[RewrittenProgram] = field(default_factory=list)

    def check_available(self) -> None:
        if self.missing is not None:
            raise TargetUnavailableError(f"target {self.name}: {self.missing}")

    def describe(self) -> str:
        return "eager"

    def emit(self, program: RewrittenProgram, request: EmitRequest, folder: Path) -> Artifact:
        self.requests.append(request)
        self.programs.append(program)
        (folder / self.name).mkdir()
        (folder / self.name / "engine.bin").write_bytes(b"engine")
        if self.refusal is not None:
            raise self.refusal
        return Artifact(
            target=self.name,
            file=f"{self.name}/engine.bin",
            runner=eager_runner(program, request.signature.output_names, self.broken),
            built_from={"maker": "test"},
            details={"fused": 3},
        )

    def choose_forms(self, options: object, asked: Mapping[str, Any]) -> Forms:
        return self.forms.choose(asked)


@pytest.fixture(scope="module")
def program_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    vit = family("timm_vit")
    path = tmp_path_factory.mktemp("program") / "tiny.pt2"
    with torch.no_grad():
        torch.export.save(torch.export.export(vit.model(), (vit.images(1),)), path)
    return path


@pytest.fixture(scope="module")
def planned(program_path: Path) -> Planned:
    """The program, loaded and captured once."""
    return plan_export(recipe_of(program_path, "onnx"))


@pytest.fixture
def install(planned: Planned, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, EagerTarget]]:
    """Put stand-ins in the places of real targets."""
    export = import_module("exporter.pipeline.export")
    monkeypatch.setattr(export, "plan_export", lambda recipe, _: replace(planned, recipe=recipe))

    def put(**targets: EagerTarget) -> dict[str, EagerTarget]:
        def find(name: str, precision: str | None = None, options: object = None) -> EagerTarget:
            targets[name].check_available()
            return targets[name]

        monkeypatch.setattr("exporter.pipeline.compile.target", find)
        return targets

    return put


def recipe_of(path: Path, *targets: str, **values: Any) -> Recipe:
    return Recipe(
        model=ModelRequest(model=str(path)), schedule=ScheduleRequest(r=4), targets=targets, **values
    )


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_one_target_that_fails_leaves_nothing_and_the_others_are_built(
    program_path: Path, install: Callable[..., Any], tmp_path: Path
) -> None:
    install(
        onnx=EagerTarget(name="onnx"),
        aoti=EagerTarget(name="aoti", broken=lambda logits: -logits),
        openvino=EagerTarget(name="openvino", refusal=UnsupportedGraphError("it does not like it")),
        trt=EagerTarget(name="trt", missing="is not installed"),
    )

    exported = build(recipe_of(program_path, "trt", "aoti", "openvino", "onnx"), tmp_path / "bundle")

    manifest = exported.bundle.manifest
    assert set(manifest.artifacts) == set(manifest.parity) == {"onnx"}
    assert {name: type(error) for name, error in exported.failures.items()} == {
        "trt": TargetUnavailableError,
        "aoti": ParityError,
        "openvino": UnsupportedGraphError,
    }
    assert {name.split("/")[0] for name in files(tmp_path / "bundle")}.isdisjoint({"aoti", "openvino", "trt"})
    assert [note for note in manifest.notes if "not built" in note] == [
        "trt was not built (status 7)",
        "aoti was not built (status 5)",
        "openvino was not built (status 4)",
    ]


def test_python_call_raises_the_worst_failure_after_the_bundle_is_written(
    program_path: Path, install: Callable[..., Any], tmp_path: Path
) -> None:
    install(
        onnx=EagerTarget(name="onnx"),
        aoti=EagerTarget(name="aoti", broken=lambda logits: -logits),
        trt=EagerTarget(name="trt", missing="is not installed"),
    )

    with pytest.raises(TargetUnavailableError, match="is not installed"):
        exporter.export(recipe_of(program_path, "aoti", "trt", "onnx"), tmp_path / "bundle")

    assert set(exporter.load_bundle(tmp_path / "bundle").manifest.artifacts) == {"onnx"}


def test_nothing_is_written_where_every_target_fails(
    program_path: Path, install: Callable[..., Any], tmp_path: Path
) -> None:
    install(
        onnx=EagerTarget(name="onnx", broken=lambda logits: logits * np.nan),
        aoti=EagerTarget(name="aoti", refusal=UnsupportedGraphError("no")),
    )

    with pytest.raises(
        ParityError, match="target onnx .* agree in eager PyTorch, so the difference comes from the engine"
    ):
        build(recipe_of(program_path, "onnx", "aoti"), tmp_path / "bundle")

    assert list(tmp_path.iterdir()) == []


def test_every_target_gets_its_own_lowering_and_equal_forms_are_made_once(
    program_path: Path, install: Callable[..., Mapping[str, EagerTarget]], tmp_path: Path
) -> None:
    folded = Forms(mask="folded", attention="op")
    targets = install(
        onnx=EagerTarget(name="onnx", forms=folded),
        aoti=EagerTarget(name="aoti", forms=replace(folded, attention="decomposed")),
        openvino=EagerTarget(name="openvino"),
    )

    build(recipe_of(program_path, "onnx", "aoti", "openvino"), tmp_path / "bundle")

    (onnx,), (aoti,), (openvino,) = (each.requests for each in targets.values())
    assert (onnx.forms, aoti.forms.attention, openvino.forms) == (folded, "decomposed", Forms())
    (first,), (second,), (third,) = (each.programs for each in targets.values())
    assert first is second and first is not third


def test_chosen_lowering_goes_before_the_targets_own(
    program_path: Path, install: Callable[..., Mapping[str, EagerTarget]], tmp_path: Path
) -> None:
    targets = install(onnx=EagerTarget(name="onnx", forms=Forms(mask="folded")))

    build(recipe_of(program_path, "onnx", lowering={"mask": "expanded"}), tmp_path / "bundle")

    assert targets["onnx"].requests[0].forms == Forms(mask="expanded")


def test_typed_program_is_proven_against_fp32_and_its_rounding_recorded_per_block(
    program_path: Path, install: Callable[..., Mapping[str, EagerTarget]], tmp_path: Path
) -> None:
    targets = install(onnx=EagerTarget(name="onnx"))

    exported = build(recipe_of(program_path, "onnx", precision="bf16"), tmp_path / "bundle")

    dtypes = {buffer.dtype for buffer in targets["onnx"].programs[0].merging.buffers()}
    parity = exported.compiled.parity["onnx"]
    assert torch.bfloat16 in dtypes
    assert 0 < parity.max_abs_error < 0.1
    assert len(exported.compiled.rounding) >= 3
    assert all(1e-4 < error < 0.05 for error in exported.compiled.rounding.values())


def test_what_an_engine_was_built_from_and_found_out_is_in_the_manifest(
    program_path: Path, install: Callable[..., Any], tmp_path: Path
) -> None:
    install(onnx=EagerTarget(name="onnx"))

    build(recipe_of(program_path, "onnx"), tmp_path / "bundle")

    record = exporter.load_bundle(tmp_path / "bundle").manifest.artifacts["onnx"]
    assert (record.built_from, record.details) == ({"maker": "test"}, {"fused": 3})


@pytest.mark.parametrize(
    ("engine", "options", "reason"),
    [
        pytest.param("aoti", AotiOptions(device="cuda"), "sees no GPU here", id="aoti"),
        pytest.param("onnx", OnnxOptions(provider="cuda"), "expected ONNX Runtime with CUDA", id="onnx"),
    ],
)
def test_device_that_is_not_here_is_refused_before_the_model_is_loaded(
    engine: str, options: Any, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    recipe = recipe_of(tmp_path / "no-such-model.pt2", engine, engines={engine: options})

    with pytest.raises(TargetUnavailableError, match=reason):
        build(recipe, tmp_path / "bundle")
