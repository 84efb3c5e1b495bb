"""Everything before the first rewrite: load, capture, examine, schedule."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from exporter.anatomy import Anatomy, Refusal, examine
from exporter.bundle import GmacsRecord
from exporter.capture import EXAMPLE_BATCH, Program, capture
from exporter.errors import UnsupportedGraphError, UsageError, WeightsError, library_failures
from exporter.graph.nodes import operands, output_node
from exporter.models import Claims, LoadedModel, load
from exporter.pipeline.observe import Observer, silent
from exporter.recipe import Recipe, SpeedGate, Validation, default_name
from exporter.records import Calibrated
from exporter.reduction import Learned, Method, method, method_names
from exporter.schedule import Schedule, ScheduleRequest, plan

_SEE_MORE = "try it with torch.export.export(model, (images,)) first; --debug shows where it stopped"


@dataclass(frozen=True, kw_only=True)
class Planned:
    """What is known before anything is built.

    Attributes:
        recipe: that asks for it.
        model: loaded.
        program: captured.
        anatomy: None for a tower that is exported as it is.
        schedule: merges per block, empty without an anatomy.
        learned: tensors of the method, by block that reduces its tokens.
        calibrated: what was chosen on images without labels; None where the recipe left nothing open.
        shared_folder: below the engines' folder, where lie the weights that they have in common with others of a
            ladder; None where they have none.
        redundancy: whether its engines give how alike the tokens are that merge, by which a ladder chooses engines.
    """

    recipe: Recipe
    model: LoadedModel
    program: Program
    anatomy: Anatomy | None
    schedule: Schedule
    learned: Mapping[int, tuple[Tensor, ...]] = field(default_factory=dict, repr=False, compare=False)
    calibrated: Calibrated | None = None
    shared_folder: str | None = None
    redundancy: bool = False

    @property
    def name(self) -> str:
        """The bundle's: the recipe's own, or one made of what it asks."""
        return self.recipe.name or default_name(self.recipe, self.model.name)

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """What stands in the way of merging, with the outputs that are asked for."""
        if self.anatomy is None:
            return ()
        return tuple(each for each in self.anatomy.refusals if each.stands(**_asked_outputs(self.recipe)))

    @property
    def first_output(self) -> int:
        """Length of the model's first output: its classes, if it has logits."""
        output = output_node(self.program.graph_module.graph)
        return int(operands(output)[0].meta["val"].shape[-1])

    @property
    def dense(self) -> "Planned":
        """The same model and engines with nothing merged, and without gates, to compare speeds with."""
        recipe, schedule = dense_recipe(self.recipe), self.schedule
        if self.anatomy is not None:
            schedule = plan(ScheduleRequest(), self.anatomy.geometry)
        return replace(self, recipe=recipe, schedule=schedule, learned={}, redundancy=False)


def plan_export(recipe: Recipe, observe: Observer = silent, *, strict: bool = True) -> Planned:
    """Load, capture, examine, schedule: everything that `inspect` shows; builds nothing.

    Args:
        recipe: what to plan.
        observe: receives the progress of every stage.
        strict: whether an obstacle to merging is an error, or only listed in the anatomy.

    Raises:
        ExportError: the model is not available, not supported, or cannot be scheduled as asked.
    """
    chosen = method(recipe.method)
    if recipe.validate.overflow.max is not None and chosen.needed is None:
        raise UsageError(
            f"validate.overflow.max: method {recipe.method} keeps as many tokens of every image; leave it out"
        )
    _check_slots(recipe, chosen)
    with observe("load") as note:
        model = load(recipe.model, _claims(chosen))
        _check_timesteps(recipe, model)
        note(f"{model.source}:{model.id}, {model.weights_kind} weights")
    with observe("capture") as note:
        examples = [
            torch.zeros((EXAMPLE_BATCH, *each.shape), dtype=each.dtype) for each in model.inputs.values()
        ]
        with library_failures(UnsupportedGraphError, "model: its graph cannot be captured", _SEE_MORE):
            program = capture(
                model.module, *examples, protected=model.protected, largest_batch=model.largest_batch
            )
        note(f"{len(program.graph_module.graph.nodes)} nodes")
    if recipe.model.tower == "text":
        return Planned(recipe=recipe, model=model, program=program, anatomy=None, schedule=_as_it_is())
    with observe("plan") as note:
        anatomy = examine(program.graph_module, chosen.place)
        schedule = plan(recipe.schedule, chosen.limited(anatomy.geometry, recipe.method_options))
        if strict:
            anatomy.check_mergeable(schedule.removed, **_asked_outputs(recipe))
        if not schedule.is_dense:
            schedule = replace(schedule, notes=(*schedule.notes, *_open_notes(recipe, chosen)))
        note(_tokens_text(schedule))
    planned = Planned(recipe=recipe, model=model, program=program, anatomy=anatomy, schedule=schedule)
    return planned if chosen.learned is None else replace(planned, learned=_learned(planned, chosen.learned))


def planned_as(planned: Planned, recipe: Recipe) -> Planned:
    """The plan of another recipe, which differs in no more than the method's options and the schedule."""
    assert planned.anatomy is not None
    chosen = method(recipe.method)
    geometry = chosen.limited(planned.anatomy.geometry, recipe.method_options)
    found = replace(planned, recipe=recipe, schedule=plan(recipe.schedule, geometry))
    return found if chosen.learned is None else replace(found, learned=_learned(found, chosen.learned))


def _check_slots(recipe: Recipe, chosen: Method) -> None:
    if recipe.schedule.slots_for is None:
        return
    if chosen.needed is None:
        raise UsageError(
            f"schedule.slots_for: method {recipe.method} keeps as many tokens of every image; say with --r or "
            "--keep-per-layer how many"
        )
    if not chosen.with_options(recipe.method_options).calibrates:
        raise UsageError(
            f"schedule.slots_for: with these options {recipe.method} keeps no more tokens than there are slots, so "
            "that no image says how many it needs; give them with --keep-per-layer"
        )


def _open_notes(recipe: Recipe, chosen: Method) -> tuple[str, ...]:
    return tuple(
        f"method_options.{name}: auto is searched for on images when this is built; shown is the default"
        for name in chosen.open_options(recipe.method_options)
    )


def _check_timesteps(recipe: Recipe, model: LoadedModel) -> None:
    asked = recipe.validate.timesteps
    if not asked:
        return
    if model.steps is None:
        raise UsageError(f"timesteps: expected a diffusion model, got {model.name}; leave --timesteps out")
    if wrong := [step for step in asked if step >= model.steps]:
        raise UsageError(
            f"timesteps: expected steps of the scheduler that {model.name} was trained with, 0 to {model.steps - 1}, "
            f"got {wrong[0]}"
        )


def _tokens_text(schedule: Schedule) -> str:
    if schedule.around:
        merging = sum(map(bool, schedule.merged))
        return f"{sum(schedule.merged)} tokens merge, at {merging} of {len(schedule.merged)} attentions"
    return f"{schedule.tokens[0]} to {schedule.tokens[-1]} tokens"


def _asked_outputs(recipe: Recipe) -> dict[str, bool]:
    """What the outputs may be, as the anatomy takes it."""
    asked = recipe.model.outputs
    return {"dense_outputs": asked == "dense", "reduced_outputs": asked == "reduced"}


def dense_recipe(recipe: Recipe) -> Recipe:
    """The recipe of the same engines with nothing merged: same targets, same passes, no gates."""
    return replace(unguarded(recipe), schedule=ScheduleRequest())


def unguarded(recipe: Recipe) -> Recipe:
    """The recipe without name, measurements, gates and shorter lengths: one that only builds."""
    model = replace(recipe.model, length=recipe.model.longest)
    return replace(recipe, name=None, model=model, validate=Validation(), bench=SpeedGate(), with_text=False)


def shorter(recipe: Recipe) -> Recipe | None:
    """The recipe of all lengths of a text but the longest, which only builds; None where there is one or none."""
    lengths = recipe.model.length
    if not isinstance(lengths, tuple) or len(lengths) == 1:
        return None
    return replace(unguarded(recipe), model=replace(recipe.model, length=lengths[:-1]))


def gmacs(planned: Planned, executed: int) -> GmacsRecord:
    """The arithmetic of one image: as the method describes it, and as the graph executes it."""
    if planned.anatomy is None:
        return GmacsRecord(dense=executed / 1e9, reduced=executed / 1e9, ratio=1.0, executed=executed / 1e9)
    schedule, workload = planned.schedule, planned.anatomy.workload
    dense = workload.macs(schedule.dense_segments)
    reduced = workload.macs(schedule.segments) + sum(
        _learned_macs(planned, block) for block in planned.learned
    )
    return GmacsRecord(
        dense=dense / 1e9,
        reduced=reduced / 1e9,
        ratio=dense / reduced,
        executed=executed / 1e9,
        blocks=tuple(macs / 1e9 for macs in block_macs(planned)),
    )


def block_macs(planned: Planned) -> list[int]:
    """Multiply-accumulates of each block of one image: up to its merge point over what enters, then over the rest.

    What a method learned is counted in the block that it reduces. Where tokens merge around attention, a block is the
    attention alone.
    """
    if planned.anatomy is None:
        return []
    if planned.schedule.around:
        counted = zip(planned.schedule.left, planned.anatomy.blocks, strict=True)
        return [_macs(left, block.tail_macs) for left, block in counted]
    tokens, workload = planned.schedule.tokens, planned.anatomy.workload
    found = []
    earlier = (0, 0)
    for index, block in enumerate(planned.anatomy.blocks):
        before, after = tokens[index], tokens[index + 1]
        head = (workload.per_token[index] - earlier[0], workload.per_pair[index] - earlier[1])
        earlier = block.tail_macs
        own = _macs(before, head) + _macs(after, block.tail_macs)
        found.append(own + _learned_macs(planned, index))
    return found


def _learned_macs(planned: Planned, block: int) -> int:
    """Of what the method learned for a block: every matrix multiplies each patch that enters it once."""
    assert planned.anatomy is not None
    patches = planned.schedule.tokens[block] - planned.anatomy.prefix
    return patches * sum(each.numel() for each in planned.learned.get(block, ()) if each.dim() == 2)


def _macs(tokens: int, growth: tuple[int, int]) -> int:
    per_token, per_pair = growth
    return tokens * per_token + tokens**2 * per_pair


def _claims(chosen: Method) -> Claims:
    """The names in a file of weights that methods have given to what they read there."""
    learned = {
        each.learned.prefix: each.name for each in map(method, method_names()) if each.learned is not None
    }
    own = chosen.learned.prefix if chosen.learned is not None else None
    others = {prefix: name for prefix, name in learned.items() if prefix != own}
    return Claims(method=chosen.name, prefix=own, others=others)


def _learned(planned: Planned, learned: Learned) -> Mapping[int, tuple[Tensor, ...]]:
    """What the method reads of the checkpoint at each block; drawn from the seed for a model of random weights.

    Raises:
        WeightsError: the weights are neither a file that has it nor random.
    """
    model, anatomy = planned.model, planned.anatomy
    assert anatomy is not None
    blocks = [block for block, r in enumerate(planned.schedule.removed) if r]
    if not blocks:
        return {}
    widths = [anatomy.blocks[block].channels for block in blocks]
    if model.weights_kind == "random":
        return dict(zip(blocks, learned.drawn(widths, planned.recipe.model.seed), strict=True))
    if model.weights_kind != "file":
        raise WeightsError(
            f"weights: method {planned.recipe.method} reads tensors {learned.prefix}.* that were trained with the "
            f"model, got {model.weights_kind} weights; give their checkpoint with --weights FILE"
        )
    return dict(zip(blocks, learned.stages(model.learned, widths), strict=True))


def _as_it_is() -> Schedule:
    return Schedule(requested="as it is", merged=(), dropped=(), tokens=())
