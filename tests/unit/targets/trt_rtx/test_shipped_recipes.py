"""Every ONNX model that the shipped recipes emit, through the real parser and builder of TensorRT for RTX.

Real: the library's own classes with every switch of the named model, image and patch size, and so the tokens; the
recipe's method, schedule and precision; the target's forms. The two models that ship with the package are whole.
Small: two blocks of three heads with random weights in place of 12 to 32 wide ones, and at most two images.

Recipes that differ in nothing else than width, depth, patch and schedule are one case: their graphs have the same
operators.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch

from exporter.models import ModelRequest, aliases
from exporter.pipeline.compile import TargetHere, targets_here
from exporter.pipeline.plan import Planned, plan_export
from exporter.pipeline.stage_options import emit_request, rewrite_options
from exporter.recipe import Recipe, load_recipe
from exporter.rewrite import rewrite
from exporter.schedule import ScheduleRequest
from exporter.targets.target import EmitRequest
from exporter.targets.trt.build import BuildRequest, build_plan
from exporter.targets.trt_rtx.gpus import built_for, configure
from exporter.targets.trt_rtx.options import RtxOptions
from exporter.targets.trt_rtx.product import RTX
from tests.support.linted import assert_taken
from tests.support.package_index import ROOT

SIZES = r"_?(tiny|small|base|large|huge)|_?patch\d+|_(224|384)$|-[BL]-\d+(-336)?"

SAME = {"deit": "vit", "vit_fashion": "vit_digits"}
"""Models of one architecture, trained otherwise."""

BLOCKS, HEADS, HEAD_CHANNELS = 2, 3, 64

EMIT_ONNX = ("onnx", "trt")
SHIPPED = [
    path
    for path in sorted((ROOT / "recipes").rglob("*.yaml"))
    if {*EMIT_ONNX} & {*load_recipe(path).targets} and load_recipe(path).model.model in aliases()
]
"""Without those whose weights the user has: MAE's, which are timm's ViT as DeiT is."""


def kind(path: Path) -> tuple[Any, ...]:
    """What decides a graph's operators."""
    recipe = load_recipe(path)
    alias = aliases()[recipe.model.model]
    model = re.sub(SIZES, "", alias.id)
    model = SAME.get(model, model)
    return alias.source, model, recipe.method, recipe.precision, "trt" in recipe.targets


KINDS = {kind(path): path for path in reversed(SHIPPED)}
"""The first recipe of each kind."""


def small(recipe: Recipe, folder: Path) -> Recipe:
    """The same recipe for a model of two blocks with random weights."""
    alias = aliases()[recipe.model.model]
    if alias.source == "exporter":
        return recipe
    timm = {"depth": BLOCKS, "num_heads": HEADS, "embed_dim": HEADS * HEAD_CHANNELS}
    schedule, kept = recipe.schedule, recipe.schedule.keep_per_layer
    if kept is not None:
        schedule = replace(schedule, keep_per_layer=kept[:BLOCKS])
    if schedule.published is not None:
        schedule = ScheduleRequest(r_per_layer=(4, 0), drop_per_layer=(3, 0))
    if alias.source == "timm":
        model = replace(recipe.model, weights="random", options=timm)
    else:
        model = small_clip(alias.id, folder, timm)
    return replace(recipe, model=model, schedule=schedule, batch=min(recipe.batch, 2))


def small_clip(name: str, folder: Path, timm: dict[str, Any]) -> ModelRequest:
    """A CLIP of open_clip with few blocks; where its image tower is timm's, timm's own, since only that can be cut."""
    config = open_clip.get_model_config(name)
    vision, text = config["vision_cfg"], config["text_cfg"]
    if "timm_model_name" in vision:
        return ModelRequest(model=f"timm:{vision['timm_model_name']}", weights="random", options=timm)
    vision |= {"layers": BLOCKS, "width": HEADS * HEAD_CHANNELS}
    text |= {"layers": 1, "width": HEAD_CHANNELS, "heads": 1}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    return ModelRequest(model=f"open_clip:local-dir:{folder}", weights="random")


def onnx_targets(recipe: Recipe) -> Iterator[TargetHere]:
    """Those of a recipe's targets that write ONNX."""
    return (each for each in targets_here(recipe).here if each.target.name in EMIT_ONNX)


def request_for(planned: Planned, here: TargetHere) -> EmitRequest:
    """What a target is asked for, as the pipeline does it; the numbers of the sample do not matter."""
    recipe, model = planned.recipe, planned.model
    shapes = {name: torch.zeros(recipe.batch, *each.shape) for name, each in model.inputs.items()}
    with torch.no_grad():
        made = model.module(*shapes.values())
    named = shapes | dict(
        zip(model.output_names, [made] if isinstance(made, torch.Tensor) else made, strict=True)
    )
    request = emit_request(planned, {name: tensor.numpy() for name, tensor in named.items()})
    options = recipe.engines.get(here.target.name, here.target.options())
    return replace(request, options=options, forms=here.target.choose_forms(options, recipe.lowering))


@pytest.mark.parametrize("path", [pytest.param(path, id=path.stem) for path in KINDS.values()])
def test_model_of_a_recipe_is_parsed_and_built(path: Path, rtx: Any, tmp_path: Path) -> None:
    planned = plan_export(small(load_recipe(path), tmp_path))
    wanted = BuildRequest(
        inputs=tuple(planned.model.inputs),
        options=RtxOptions(),
        device=built_for("ampere_plus"),
        cache=None,
        product=RTX,
        configure=configure,
    )
    assert not planned.schedule.is_dense
    for here in onnx_targets(planned.recipe):
        request = request_for(planned, here)
        options = replace(rewrite_options(planned), precision=request.precision, forms=request.forms)
        artifact = here.emit(rewrite(planned.program, planned.schedule, options), request, tmp_path)

        assert_taken(tmp_path / artifact.file, "trt-rtx", "cuda")
        assert len(bytes(build_plan(rtx, tmp_path / artifact.file, wanted).plan)) > 1000


def test_every_recipe_is_of_a_kind_that_is_built() -> None:
    assert {kind(path) for path in SHIPPED} == KINDS.keys()
    assert len(KINDS) < len(SHIPPED) / 2
