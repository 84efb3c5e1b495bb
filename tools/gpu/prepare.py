"""Everything that needs no GPU: models captured, rewritten, typed and lowered, and written without weights.

In: a list of contenders. Out: a folder for `run`. A program has a free batch axis, so that one file serves every batch
size: PyTorch launches the same kernels whatever is written in the graph. What a compiler sees has a fixed one.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import torch
from torch import nn

from exporter.anatomy import Anatomy, examine
from exporter.capture import EXAMPLE_BATCH, Program, capture
from exporter.errors import UsageError
from exporter.forms import Forms, Precision
from exporter.graph.nodes import operands, output_node, shape_of
from exporter.models import LoadedModel, load
from exporter.processes.serving import reason
from exporter.reduction import method
from exporter.rewrite import RewriteOptions, RewrittenProgram, rewrite
from exporter.schedule import plan
from exporter.signature import Signature, TensorSpec
from exporter.targets import EmitRequest, find_target, options_from
from exporter.targets.results import first_results
from tools.gpu.contenders import MERGINGS, MODELS, Contender
from tools.gpu.derive import Recording
from tools.gpu.draw import Parameter, draw, fill, pictures, table
from tools.gpu.packed import write_onnx, write_program
from tools.gpu.plan import Entry, ModelFacts, Plan, write_plan

CALIBRATION_IMAGES = 8
"""That the scales of fp8 are taken from; the first ones that `run` shows as well."""

ENGINE_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "onnx": {"provider": "cuda"},
    "aoti": {"device": "cuda"},
    "trt": {},
}
"""Options with which an engine runs on a GPU."""


def prepare(folder: Path, wanted: tuple[Contender, ...], tell: Callable[[str], None]) -> Plan:
    """Write all files of these contenders, and the plan.

    Args:
        folder: an existing one.
        wanted: the most important first.
        tell: given a line about every contender.
    """
    found, facts = {}, {}
    for name in dict.fromkeys(each.model for each in wanted):  # one model in memory at a time
        model = _Model(name, folder)
        facts[name] = model.facts
        for contender in wanted:
            if contender.model == name:
                found[contender] = model.entry(contender)
                tell(f"{contender.name}: {found[contender].missing or 'ready'}")
    made = Plan(torch=torch.__version__, models=facts, entries=tuple(found[each] for each in wanted))
    write_plan(folder, made)
    return made


@dataclass(frozen=True, kw_only=True)
class _Written:
    file: str
    executed_macs: int
    outputs: Mapping[str, tuple[int, ...]]


class _Model:
    """One model, with drawn weights, and the files that were made of it."""

    def __init__(self, name: str, folder: Path) -> None:
        self._name, self._folder = name, folder
        self._written: dict[str, _Written] = {}

    @cached_property
    def facts(self) -> ModelFacts:
        name, example = next(iter(self._loaded.inputs.items()))
        channels, height, width = example.shape
        return ModelFacts(parameters=self._parameters, input=name, image=(channels, height, width))

    def entry(self, contender: Contender) -> Entry:
        """What it takes to run a contender; why it is not available, where this version cannot make it."""
        if contender.kind == "library":
            return Entry(contender=contender)
        try:
            written = self._file(contender, forms_of(contender))
            reference = self._program(contender.merging, "fp32", Forms(), None)
        except (
            Exception
        ) as error:  # a defect, too, concerns one contender, and hours may have gone into the others
            return Entry(contender=contender, missing=reason(error))
        return Entry(
            contender=contender,
            file=written.file,
            reference=reference.file,
            executed_macs=written.executed_macs,
            outputs=written.outputs,
        )

    @cached_property
    def _loaded(self) -> LoadedModel:
        return load(MODELS[self._name])

    @cached_property
    def _parameters(self) -> dict[str, Parameter]:
        return table(self._module)

    @property
    def _module(self) -> nn.Module:
        assert isinstance(self._loaded.module, nn.Module)
        return self._loaded.module

    @cached_property
    def _captured(self) -> tuple[Program, Anatomy]:
        fill(self._module, {name: draw(name, each, "cpu") for name, each in self._parameters.items()})
        program = capture(self._module, torch.zeros((EXAMPLE_BATCH, *self.facts.image)))
        return program, examine(program.graph_module)

    def _file(self, contender: Contender, forms: Forms) -> _Written:
        if contender.kind in ("onnx", "trt"):
            return self._onnx(contender, forms)
        batch = contender.batch if contender.kind == "aoti" else None
        return self._program(contender.merging, contender.precision, forms, batch)

    def _program(self, merging: str, precision: str, forms: Forms, batch: int | None) -> _Written:
        file = f"{self._name}-{merging}-{precision}-{_slug(forms)}-{batch or 'any'}.zip"
        if file not in self._written:
            recording, program = self._rewritten(merging, precision, forms, batch)
            outputs = self._outputs(program)
            write_program(self._folder / file, first_results(program.exported, program.outputs), recording)
            self._written[file] = _Written(file=file, executed_macs=program.executed_macs, outputs=outputs)
        return self._written[file]

    def _onnx(self, contender: Contender, forms: Forms) -> _Written:
        from exporter.targets.onnx.build import build

        recording, program = self._rewritten(contender.merging, contender.precision, forms, contender.batch)
        exported, outputs = first_results(program.exported, program.outputs), self._outputs(program)
        request = EmitRequest(
            signature=signature(self.facts, contender.batch, outputs),
            precision=contender.precision,  # type: ignore[arg-type]
            forms=forms,
            options=_options(contender.kind),
        )
        file = contender.name.replace(" ", "-") + ".zip"
        write_onnx(self._folder / file, build(exported, request), exported, recording)
        return _Written(file=file, executed_macs=program.executed_macs, outputs=outputs)

    def _rewritten(
        self, merging: str, precision: str, forms: Forms, batch: int | None
    ) -> tuple[Recording, RewrittenProgram]:
        program, anatomy = self._captured
        calibrated: dict[str, Any] = {}
        if precision == "fp8":
            calibrated = {"calibration": pictures(CALIBRATION_IMAGES, self.facts.image, "cpu")}
        options = RewriteOptions(
            method=method("tome"),
            proportional=self._loaded.proportional_attention,
            batch=batch or EXAMPLE_BATCH,
            dynamic_batch=batch is None,
            precision=precision,  # type: ignore[arg-type]
            forms=forms,
            **calibrated,
        )
        recording = Recording(dict(self._module.named_parameters()))
        with recording.running():
            return recording, rewrite(program, plan(MERGINGS[merging], anatomy.geometry), options)

    def _outputs(self, program: RewrittenProgram) -> dict[str, tuple[int, ...]]:
        values = operands(output_node(program.exported.graph))[: program.outputs]
        return {
            name: tuple(map(int, shape_of(value)[1:]))
            for name, value in zip(self._loaded.output_names, values, strict=True)
        }


def signature(model: ModelFacts, batch: int, outputs: Mapping[str, tuple[int, ...]]) -> Signature:
    """Of an engine with a fixed batch; everything in float32."""
    return Signature(
        inputs=(TensorSpec(name=model.input, dtype="float32", shape=(batch, *model.image)),),
        outputs=tuple(
            TensorSpec(name=name, dtype="float32", shape=(batch, *shape)) for name, shape in outputs.items()
        ),
    )


def _options(kind: str) -> Any:
    return options_from(kind, ENGINE_OPTIONS[kind])


def forms_of(contender: Contender) -> Forms:
    """Of a contender's program or model.

    Raises:
        UsageError: this version has no such precision.
    """
    if contender.precision not in get_args(Precision):
        raise UsageError(f"this version has no precision {contender.precision}")
    if contender.merge == "operators":
        return Forms()
    name = contender.kind if contender.kind in ENGINE_OPTIONS else "aoti"
    return find_target(name).default_forms(_options(name))


def _slug(forms: Forms) -> str:
    return "-".join(str(value) for value in asdict(forms).values())
