"""Image towers inside bigger checkpoints: found by rule, equal to transformers at the place where they are read."""

import copy
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from exporter.anatomy import examine
from exporter.capture import EXAMPLE_BATCH, capture
from exporter.errors import ModelUnavailableError, UsageError, WeightsError
from exporter.models import ModelRequest, load
from exporter.models.shipped.digits import DIGITS_PREPROCESS
from exporter.models.weights import redraw_constant_parameters
from exporter.schedule import ScheduleRequest
from tests.support.compiled import MIN_MARGIN, Captured, capture_model, max_abs_error
from tests.support.definitions import visionzip
from tests.support.eager_blocks import block_parts
from tests.support.eager_merge import replaced, trace_eager_merged
from tests.support.eager_towers import find_tower
from tests.support.hf_families import DINO
from tests.support.hf_inside import CLIP, LLAMA, MAKE, SWIN, Compute, arriving, llava, of
from tests.support.loaded_models import assert_captures, assert_computes, example_of

Checkpoint = Callable[[str], tuple[Any, Path]]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Gives a tiny model by its name in the table, and the folder that it was saved to."""
    made: dict[str, tuple[Any, Path]] = {}

    def get(name: str) -> tuple[Any, Path]:
        if name not in made:
            torch.manual_seed(0)
            model = MAKE[name]().eval().requires_grad_(False)
            redraw_constant_parameters(model)
            folder = tmp_path_factory.mktemp("inside")
            model.save_pretrained(folder)
            (folder / "look.json").write_text(json.dumps(DIGITS_PREPROCESS.to_dict()))
            made[name] = model, folder
        return made[name]

    return get


def request(folder: Path, **changes: Any) -> ModelRequest:
    return ModelRequest(**{"model": f"hf:{folder}", "preprocess": str(folder / "look.json"), **changes})


def photos() -> torch.Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def image_features(model: Any, images: torch.Tensor) -> Any:
    return model.get_image_features(images)


def pooled(at: str) -> Compute:
    return lambda model, images: model.get_submodule(at)(images).pooler_output


def class_token(at: str) -> Compute:
    return lambda model, images: model.get_submodule(at)(images).last_hidden_state[:, 0]


def retrieved(model: Any, images: torch.Tensor) -> torch.Tensor:
    tokens = model.vision_model(images).last_hidden_state
    return functional.normalize(model.vision_proj(tokens[:, 0]), dim=1)


PROJECTED = arriving("model.multi_modal_projector", image_features)


@pytest.mark.parametrize(
    ("name", "expected", "outputs"),
    [
        ("llava", PROJECTED, "tokens"),
        ("llava, two layers", PROJECTED, "tokens"),
        ("internvl", lambda model, images: model.model.vision_tower(images).last_hidden_state[:, 1:], "tokens"),
        ("paligemma", lambda model, images: PROJECTED(model, images).mean(dim=1), "features"),
        ("blip-2", pooled("vision_model"), "features"),
        ("blip-2 model", lambda model, images: image_features(model, images).pooler_output, "embedding"),
        ("blip retrieval", retrieved, "embedding"),
        ("blip answers", pooled("vision_model"), "features"),
        ("owl-vit", pooled("owlvit.vision_model"), "features"),
        ("clipseg", pooled("clip.vision_model"), "features"),
        ("git", class_token("git.image_encoder"), "features"),
        ("trocr", class_token("encoder"), "features"),
    ],
)  # fmt: skip
def test_a_tower_inside_computes_what_transformers_does(
    name: str, expected: Compute, outputs: str, checkpoint: Checkpoint
) -> None:
    model, folder = checkpoint(name)
    loaded = load(request(folder))
    assert_computes(loaded, partial(expected, model))
    assert loaded.output_names == (outputs,)
    assert loaded.read_by == (type(model).__name__ if outputs == "tokens" else None)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("llava", PROJECTED),
        ("paligemma", PROJECTED),
        ("blip-2", arriving("qformer", image_features)),
        ("trocr", arriving("decoder", lambda model, images: model(images, torch.ones(2, 1).long()))),
        ("blip retrieval", lambda model, images: model.vision_model(images).last_hidden_state),
    ],
)
def test_dense_and_reduced_outputs_are_the_tokens_that_are_read(
    name: str, expected: Compute, checkpoint: Checkpoint
) -> None:
    model, folder = checkpoint(name)
    loaded = load(request(folder, outputs="reduced"))
    assert loaded.output_names == ("tokens",)
    assert_computes(loaded, partial(expected, model))


def test_the_tensors_of_the_tower_are_enough_and_each_of_them_is_needed(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    model, folder = checkpoint("llava")
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    own = {name: value for name, value in load_file(folder / "model.safetensors").items() if "vision" in name}
    other = {
        "language_model.model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)
    }  # of old checkpoints
    save_file(own | other, tmp_path / "model.safetensors", {"format": "pt"})
    asked = {"preprocess": str(folder / "look.json")}
    assert_computes(load(request(tmp_path, **asked)), partial(PROJECTED, model))

    lost = next(name for name in own if name.endswith("layers.0.mlp.fc1.weight"))
    save_file(
        {name: own[name] for name in own if name != lost}, tmp_path / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(WeightsError, match=r"1 missing: .*layers\.0\.mlp\.fc1\.weight"):
        load(request(tmp_path, **asked))


def test_shards_and_files_of_the_whole_or_of_the_tower_alone_are_read(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    model, folder = checkpoint("llava")
    model.save_pretrained(tmp_path, max_shard_size="60KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    save_file(model.model.vision_tower.state_dict(), tmp_path / "tower.safetensors")
    expected = load(request(folder)).weights_sha256
    asked = {"preprocess": str(folder / "look.json")}
    assert load(request(tmp_path, **asked)).weights_sha256 == expected
    for weights in (folder / "model.safetensors", tmp_path / "tower.safetensors"):
        assert load(request(folder, weights=str(weights))).weights_sha256 == expected


def test_a_tower_inside_is_resized_as_transformers_does(checkpoint: Checkpoint) -> None:
    model, folder = checkpoint("owl-vit")
    tower = model.owlvit.vision_model
    loaded = load(ModelRequest(model=f"hf:{folder}", image_size=48))
    assert_computes(loaded, lambda images: tower(images, interpolate_pos_encoding=True).pooler_output)


@pytest.mark.parametrize("name", ["llava, two layers", "ast", "owl-vit"])
def test_a_tower_inside_is_drawn_without_the_rest_and_captured(name: str, checkpoint: Checkpoint) -> None:
    _, folder = checkpoint(name)
    look = None if name == "ast" else str(folder / "look.json")
    assert_captures(load(request(folder, weights="random", preprocess=look)))


@pytest.mark.parametrize(
    ("name", "field", "outputs"),
    [("ast", "pooler_output", "features"), ("ast classifier", "logits", "logits")],
)
def test_spectrograms_are_an_input_without_preprocessing(
    name: str, field: str, outputs: str, checkpoint: Checkpoint
) -> None:
    model, folder = checkpoint(name)
    loaded = load(ModelRequest(model=f"hf:{folder}"))
    assert_computes(loaded, lambda spectrograms: getattr(model(spectrograms), field))
    assert (list(loaded.inputs), loaded.example_input.shape) == (["input_values"], (32, 16))
    assert (loaded.output_names, loaded.preprocess) == ((outputs,), None)
    assert loaded.why_no_photos == "takes spectrograms, not images"
    for asked in ({"image_size": 64}, {"preprocess": str(folder / "look.json")}):
        with pytest.raises(UsageError, match=f"--{next(iter(asked)).replace('_', '-')} says nothing about"):
            load(ModelRequest(model=f"hf:{folder}", **asked))


def test_patches_of_spectrograms_merge_and_both_first_tokens_stay(checkpoint: Checkpoint) -> None:
    model, folder = checkpoint("ast classifier")
    loaded = load(ModelRequest(model=f"hf:{folder}"))
    spectrograms = example_of(loaded)
    run = trace_eager_merged(copy.deepcopy(model).double(), spectrograms.double(), (2, 3), "tome")
    assert run.margin > MIN_MARGIN
    program = capture(loaded.module, torch.zeros(EXAMPLE_BATCH, *spectrograms.shape[1:]))
    captured = Captured(program=program, anatomy=examine(program.graph_module))
    assert captured.anatomy.prefix == 2
    compiled = captured.compile(ScheduleRequest(r_per_layer=(2, 3)))
    assert max_abs_error(compiled(spectrograms)[0], run.output) < 1e-5


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("vitpose", lambda model, images: model(images).heatmaps),
        ("backbone", lambda model, images: model(images).feature_maps[0]),
    ],
)
def test_dense_outputs_of_poses_and_backbones_are_their_maps(
    name: str, expected: Compute, checkpoint: Checkpoint
) -> None:
    model, folder = checkpoint(name)
    look = {**DIGITS_PREPROCESS.to_dict(), "image_size": [32, 24 if name == "vitpose" else 32]}
    (folder / "look.json").write_text(json.dumps(look))
    loaded = load(request(folder, outputs="dense"))
    assert loaded.output_names == ("maps",)
    assert_computes(loaded, partial(expected, model))
    with pytest.raises(ModelUnavailableError, match="with --outputs dense its maps are exported$"):
        load(request(folder))


def test_both_halves_of_blip_compare_images_and_texts_as_it_does_itself(checkpoint: Checkpoint) -> None:
    model, folder = checkpoint("blip retrieval")
    images, ids = photos(), torch.arange(48).reshape(3, 16) + 2
    ids[0, 6:], ids[1, 12:] = 1, 1  # padding
    mask = (ids != 1).long()
    expected = model(ids, images, use_itm_head=False, attention_mask=mask).itm_score
    of_images, of_texts = load(request(folder)), load(ModelRequest(model=f"hf:{folder}", tower="text"))
    assert of_images.output_names == of_texts.output_names == ("embedding",)
    assert isinstance(of_images.module, nn.Module)
    assert isinstance(of_texts.module, nn.Module)
    scores = of_images.module(images) @ of_texts.module(ids).T
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-5)
    assert_captures(of_texts)


class Reading(nn.Module):
    """What reaches the projector of a LLaVA model, as a model of images."""

    def __init__(self, checkpoint: Any) -> None:
        super().__init__()
        self.checkpoint = checkpoint

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Tokens (B, T, C)."""
        return PROJECTED(self.checkpoint, images)


@pytest.fixture(scope="module")
def reading(checkpoint: Checkpoint) -> tuple[Reading, Captured]:
    """LLaVA in double precision and its captured tower, of whose three blocks two are read."""
    model, folder = checkpoint("llava")
    module = load(request(folder, outputs="reduced")).module
    assert isinstance(module, nn.Module)
    return Reading(copy.deepcopy(model).double()).eval(), capture_model(module, 32)


def test_tokens_merge_up_to_the_layer_that_a_language_model_reads(reading: tuple[Reading, Captured]) -> None:
    reader, captured = reading
    images = photos()
    run = trace_eager_merged(reader, images.double(), (4, 3, 0), "tome")
    assert run.margin > MIN_MARGIN
    program = captured.compile(ScheduleRequest(r_per_layer=(4, 3)), reduced_outputs=True)
    assert program(images)[0].shape == (2, 9, 32)
    assert max_abs_error(program(images)[0], run.output) < 1e-5


def test_visionzip_compresses_what_a_language_model_reads(reading: tuple[Reading, Captured]) -> None:
    reader, captured = reading
    images, margins = photos(), list[float]()
    block = find_tower(reader).blocks[1]
    parts, dense = block_parts(block), block.forward

    def zipped(x_BNC: torch.Tensor, *masks: Any, **options: Any) -> torch.Tensor:
        q_BHND, k_BHND, _ = parts.qkv(x_BNC)
        row_BHN = (q_BHND[:, :, :1] @ k_BHND.transpose(2, 3) * parts.scale).softmax(dim=-1)[:, :, 0]
        rows, keys = row_BHN.sum(dim=1).tolist(), k_BHND.mean(dim=1)
        found = [
            visionzip.compress(tokens, row, key, dominant=5, contextual=2, prefix=1)
            for tokens, row, key in zip(dense(x_BNC, *masks, **options), rows, keys, strict=True)
        ]
        margins.extend(each.margin for each in found)
        return torch.stack([each.tokens_KC for each in found])

    with torch.no_grad(), replaced(block, "forward", zipped):
        expected = reader(images.double())
    assert min(margins) > MIN_MARGIN
    asked: dict[str, Any] = {"method_options": {"contextual": 0.3}, "proportional": False}
    request = ScheduleRequest(r_per_layer=(0, 9))
    program = captured.compile(request, "visionzip", reduced_outputs=True, **asked)
    assert program(images)[0].shape == (2, 7, 32)
    assert max_abs_error(program(images)[0], expected) < 1e-5


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        pytest.param(
            of("VideoLlavaForConditionalGeneration", vision_config=CLIP, text_config=LLAMA),
            r"of which 2 sub-modules take images: model\.video_tower, model\.image_tower; save",
            id="two towers",
        ),
        pytest.param(
            partial(llava, vision_config=SWIN),
            r"none of its sub-modules .*: model\.vision_tower \(SwinModel, whose tokens change from stage to stage\);",
            id="no equal tokens",
        ),
        pytest.param(
            of("VipLlavaForConditionalGeneration", vision_config=CLIP, text_config=LLAMA),
            "which layers of its image tower are read, and not whether the class token",
            id="class token unsaid",
        ),
        pytest.param(
            partial(llava, vision_feature_layer=-9), "cannot be built or run here", id="no such layer"
        ),
        pytest.param(
            lambda: transformers.Dinov2Backbone(transformers.Dinov2Config(**DINO, out_indices=[1, 2])),
            "gives 2 maps: expected one of out_features",
            id="several maps",
        ),
    ],
)
def test_a_tower_that_is_not_found_is_refused_with_what_takes_images(
    make: Callable[[], Any], expected: str, tmp_path: Path
) -> None:
    with torch.device("meta"):
        model = make()
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(tmp_path)
    with pytest.raises(ModelUnavailableError, match=expected) as caught:
        load(ModelRequest(model=f"hf:{tmp_path}", weights="random", outputs="dense"))
    assert "\n" not in str(caught.value)
