"""open_clip's own checkpoints: folders, training files, image towers alone, other sizes; equal to the library's."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from exporter.errors import ExportError, ModelUnavailableError, UsageError, WeightsError
from exporter.models import LoadedModel, ModelRequest, Preprocess, load
from exporter.models.open_clip import config as open_clip_config
from exporter.models.preprocessing.file import GIVEN, GUESSED
from exporter.models.request import Tower
from tests.support.loaded_models import assert_computes, example_of

CLIP: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
TIMM: dict[str, Any] = CLIP | {
    "vision_cfg": {
        "image_size": 160,
        "timm_model_name": "test_vit",
        "timm_pool": "token",
        "timm_proj": "linear",
    },
    "custom_text": True,
    "init_logit_bias": -10,
}
SEEN = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "interpolation": "bilinear", "resize_mode": "squash"}

ModelState = dict[str, torch.Tensor]


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny models under names of the registry; `quick` has weights that were trained with QuickGELU."""
    monkeypatch.setattr("open_clip.factory._MODEL_CONFIGS", {"tiny": CLIP, "tiny-timm": TIMM})
    cfg = {"quick": {"quick_gelu": True, "url": "", "hf_hub": "", **SEEN}}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny", cfg)


def made(name: str = "tiny", **options: Any) -> Any:
    """A seeded model of the library's own making."""
    torch.manual_seed(0)
    return open_clip.create_model(name, device="cpu", pretrained_text=False, **options).eval()


def state_of(clip: Any) -> ModelState:
    return {name: tensor.contiguous() for name, tensor in clip.state_dict().items()}


def assert_equals(loaded: LoadedModel, clip: Any, tower: Tower = "image") -> None:
    """The loaded tower computes what the library's model does."""
    assert_computes(loaded, clip.encode_image if tower == "image" else clip.encode_text)


def save_folder(
    folder: Path,
    clip: Any,
    config: Any = CLIP,
    *,
    seen: Any = SEEN,
    file: str = "open_clip_model.safetensors",
) -> Path:
    """As open_clip's `save_for_hf` writes one."""
    folder.mkdir(exist_ok=True)
    tree = {"model_cfg": config} | ({"preprocess_cfg": seen} if seen is not None else {})
    (folder / "open_clip_config.json").write_text(json.dumps(tree))
    write = save_file if file.endswith("safetensors") else torch.save
    write(state_of(clip), folder / file)
    return folder


@pytest.mark.parametrize("tower", ["image", "text"])
@pytest.mark.parametrize(
    "file", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin", "epoch_latest.pt"]
)
def test_a_folder_computes_what_the_library_does(file: str, tower: Tower, tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "my-clip", made(), file=file)
    loaded = load(ModelRequest(model=f"open_clip:local-dir:{folder}", tower=tower))
    assert_equals(loaded, made(), tower)
    assert (loaded.id, loaded.source, loaded.weights_kind) == ("local-dir:my-clip", "open_clip", "pretrained")
    assert loaded.name == ("my-clip" if tower == "image" else "my-clip-text")
    assert loaded.notes == ()


def test_a_folder_says_its_activation_and_preprocessing(tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "c", made(force_quick_gelu=True), CLIP | {"quick_gelu": True})
    loaded = load(ModelRequest(model=f"open_clip:local-dir:{folder}"))
    assert_equals(loaded, made(force_quick_gelu=True))
    assert loaded.preprocess == Preprocess(
        image_size=(32, 32),
        interpolation="bilinear",
        crop_fraction=1.0,
        mean=(0.5, 0.4, 0.3),
        std=(0.2, 0.3, 0.4),
        resize_mode="squash",
        to_rgb="last",
    )


def test_the_library_reads_the_folder_alike(tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "c", made(force_quick_gelu=True), CLIP | {"quick_gelu": True})
    own = open_clip.create_model(f"local-dir:{folder}", device="cpu").eval()
    assert_equals(load(ModelRequest(model=f"open_clip:local-dir:{folder}")), own)


def test_a_folder_without_preprocessing_is_noted_and_a_file_says_it(tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "c", made(), seen=None)
    (note,) = load(ModelRequest(model=f"open_clip:local-dir:{folder}")).notes
    assert note.startswith(GUESSED)
    (tmp_path / "seen.json").write_text(json.dumps({"image_size": 32, "mean": [0] * 3, "std": [1] * 3}))
    request = ModelRequest(model=f"open_clip:local-dir:{folder}", preprocess=str(tmp_path / "seen.json"))
    assert load(request).notes == (GIVEN,)


def test_texts_are_read_by_the_folders_tokenizer(tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "c", made())
    loaded = load(ModelRequest(model=f"open_clip:local-dir:{folder}", tower="text"))
    assert loaded.tokenize is not None
    own = open_clip.get_tokenizer(f"local-dir:{folder}")(["a photo of a cat"]).numpy()
    assert loaded.tokenize(["a photo of a cat"]).tolist() == own.tolist()


def test_a_repository_of_the_hub_is_a_folder_of_its_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "snapshots").mkdir()
    folder = save_folder(tmp_path / "snapshots" / "abc123", made())
    asked: list[object] = []

    def fetched(
        repository: str, filename: str = "open_clip_model.safetensors", revision: str = "main"
    ) -> str:
        asked.append((repository, revision))
        return str(folder / filename)

    monkeypatch.setattr(open_clip_config, "download_pretrained_from_hf", fetched)
    monkeypatch.setattr("exporter.models.fetch._hub_answers", lambda: False)
    loaded = load(ModelRequest(model="open_clip:hf-hub:me/my-clip@v2"))
    assert_equals(loaded, made())
    assert set(asked) == {("me/my-clip", "v2")}
    assert (loaded.id, loaded.name) == ("hf-hub:me/my-clip@v2", "my-clip")
    assert loaded.weights_tag == "abc123"


def as_trained(state: ModelState) -> Any:
    return {
        "epoch": 3,
        "name": "run",
        "state_dict": {f"module.{name}": t for name, t in state.items()},
        "optimizer": {},
    }


def visual(state: ModelState, prefix: str) -> ModelState:
    named = {name.removeprefix("visual."): t for name, t in state.items() if name.startswith("visual.")}
    return {f"{prefix}{name}": tensor for name, tensor in named.items()}


ALONE = "the file holds the image tower alone"


@pytest.mark.parametrize("model", ["tiny", "tiny-timm"])
@pytest.mark.parametrize(
    ("change", "note"),
    [
        pytest.param(lambda state: state, None, id="state dict"),
        pytest.param(as_trained, 'those under "state_dict"', id="training checkpoint"),
        pytest.param(lambda state: visual(state, "visual."), ALONE, id="visual keys"),
        pytest.param(
            lambda state: visual(state, "visual.") | {"logit_scale": state["logit_scale"]}, ALONE, id="and scale"
        ),
        pytest.param(lambda state: visual(state, ""), ALONE, id="bare visual"),
        pytest.param(lambda state: as_trained(visual(state, "visual.")), ALONE, id="visual of a training"),
        pytest.param(
            lambda state: {name: tensor.half().float().half() for name, tensor in state.items()}, None, id="fp16"
        ),
    ],
)  # fmt: skip
def test_a_file_computes_what_the_library_does(
    model: str, change: Callable[[ModelState], Any], note: str | None, tmp_path: Path
) -> None:
    clip = made(model)
    clip.load_state_dict({name: tensor.half().float() for name, tensor in clip.state_dict().items()})
    torch.save(change(state_of(clip)), tmp_path / "w.pt")
    loaded = load(ModelRequest(model=f"open_clip:{model}", weights=str(tmp_path / "w.pt")))
    assert_equals(loaded, clip)
    assert (loaded.weights_kind, loaded.weights_tag) == ("file", None)
    assert note is None or any(note in each for each in loaded.notes)


def test_a_file_and_a_tag_are_built_with_the_tags_activation(tmp_path: Path) -> None:
    """The sample of wrong embeddings: GELU would be built, and parity would compare like with like."""
    quick, plain = made(force_quick_gelu=True), made()
    save_file(state_of(quick), tmp_path / "w.safetensors")
    loaded = load(ModelRequest(model="open_clip:tiny/quick", weights=str(tmp_path / "w.safetensors")))
    assert_equals(loaded, quick)
    inputs = example_of(loaded)
    assert (quick.encode_image(inputs) - plain.encode_image(inputs)).abs().max() > 1e-3
    assert loaded.notes == (
        "activation QuickGELU assumed, as of tag quick; the file does not say; "
        "--model-option quick_gelu=false builds the other",
        "preprocessing guessed: as of tag quick, for the file does not say; --preprocess says it",
    )
    assert loaded.preprocess is not None
    assert loaded.preprocess.mean == (0.5, 0.4, 0.3)


def test_pretrained_weights_of_a_tag_are_built_with_its_activation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file(state_of(made(force_quick_gelu=True)), tmp_path / "w.safetensors")
    monkeypatch.setattr(
        "open_clip.factory.download_pretrained", lambda *_a, **_o: str(tmp_path / "w.safetensors")
    )
    monkeypatch.setattr("exporter.models.fetch._hub_answers", lambda: False)
    loaded = load(ModelRequest(model="open_clip:tiny/quick"))
    assert_equals(loaded, made(force_quick_gelu=True))
    assert loaded.notes == ("activation: QuickGELU, as the weights quick were trained with",)


@pytest.mark.parametrize("size", [64, (32, 64)], ids=["larger", "not square"])
def test_positions_are_resampled_as_the_library_does(size: Any, tmp_path: Path) -> None:
    torch.save(state_of(made()), tmp_path / "w.pt")
    own = made(pretrained=str(tmp_path / "w.pt"), force_image_size=size)
    loaded = load(ModelRequest(model="open_clip:tiny", weights=str(tmp_path / "w.pt"), image_size=size))
    assert_equals(loaded, own)
    height = size if isinstance(size, int) else size[0]
    note = f"positions resampled from 4x4 to {height // 8}x8 patches, as open_clip does"
    assert note in loaded.notes


def test_weights_of_another_size_than_the_names_are_resampled(tmp_path: Path) -> None:
    torch.save(visual(state_of(made(force_image_size=64)), ""), tmp_path / "w.pt")
    loaded = load(ModelRequest(model="open_clip:tiny", weights=str(tmp_path / "w.pt"), image_size=64))
    assert_equals(loaded, made(force_image_size=64))
    at_own = load(ModelRequest(model="open_clip:tiny", weights=str(tmp_path / "w.pt")))
    assert "positions resampled from 8x8 to 4x4 patches, as open_clip does" in at_own.notes


@pytest.mark.parametrize(
    "change", [lambda state: state, lambda state: visual(state, "")], ids=["whole", "bare"]
)
def test_a_tower_of_timm_is_resized_as_the_library_does(
    change: Callable[[ModelState], ModelState], tmp_path: Path
) -> None:
    torch.save(state_of(made("tiny-timm")), tmp_path / "whole.pt")
    torch.save(change(state_of(made("tiny-timm"))), tmp_path / "w.pt")
    own = made("tiny-timm", pretrained=str(tmp_path / "whole.pt"), force_image_size=96)
    loaded = load(ModelRequest(model="open_clip:tiny-timm", weights=str(tmp_path / "w.pt"), image_size=96))
    assert_equals(loaded, own)
    assert "positions resampled for 96x96 pixels, as open_clip does" in loaded.notes


def test_weights_of_an_older_version_are_read_as_the_library_does(tmp_path: Path) -> None:
    """Text names without `text.`, a temperature of one dimension, and no bias."""
    state = {name.removeprefix("text."): tensor for name, tensor in state_of(made("tiny-timm")).items()}
    del state["logit_bias"]
    torch.save(state | {"logit_scale": state["logit_scale"].reshape(1)}, tmp_path / "w.pt")
    own = made("tiny-timm", pretrained=str(tmp_path / "w.pt"))
    for tower in ("image", "text"):
        assert_equals(
            load(ModelRequest(model="open_clip:tiny-timm", weights=str(tmp_path / "w.pt"), tower=tower)),
            own,
            tower,
        )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(None, "has no open_clip_config.json: expected a folder that open_clip saved", id="none"),
        pytest.param("{", "is not valid JSON", id="not JSON"),
        pytest.param("[" * 99_999, "nested too deeply", id="deep"),
        pytest.param("[1]", "holds a list", id="a list"),
        pytest.param("{}", "has no 'model_cfg': expected", id="empty"),
        pytest.param({"embed_dim": 16}, "has no 'vision_cfg'", id="no towers"),
        pytest.param(CLIP | {"vision_cfg": [1]}, "must be objects", id="tower is a list"),
        pytest.param(CLIP | {"vision_cfg": {"image_size": 2**70}}, "its image_size is 118", id="huge size"),
        pytest.param(CLIP | {"vision_cfg": {"sise": 1}}, "open_clip cannot build what its .*sise", id="unknown key"),
        pytest.param(CLIP | {"embed_dim": "x" * 500}, "open_clip cannot build", id="odd width"),
        pytest.param(
            CLIP | {"vision_cfg": CLIP["vision_cfg"] | {"patch_size": 0}}, "open_clip cannot build", id="no patch"
        ),
    ],
)  # fmt: skip
def test_a_folder_that_cannot_be_built_is_refused(content: Any, expected: str, tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "c", made())
    (folder / "open_clip_config.json").unlink()
    if content is not None:
        text = content if isinstance(content, str) else json.dumps({"model_cfg": content})
        (folder / "open_clip_config.json").write_text(text)
    with pytest.raises(ModelUnavailableError, match=expected) as caught:
        load(ModelRequest(model=f"open_clip:local-dir:{folder}"))
    assert caught.value.exit_status == 3
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        pytest.param({"resize_mode": "longest"}, 'resize_mode "longest" .*--preprocess FILE.json', id="mode"),
        pytest.param({"interpolation": "lanczos"}, 'interpolation "lanczos"', id="filter"),
        pytest.param({"mean": ["a"]}, "its preprocessing: mean: expected numbers", id="mean"),
        pytest.param({"mean": [0.5]}, "mean: expected 3 numbers", id="one channel"),
    ],
)
def test_preprocessing_that_is_not_supported_is_refused(seen: Any, expected: str, tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "c", made(), seen=seen)
    with pytest.raises(ModelUnavailableError, match=expected):
        load(ModelRequest(model=f"open_clip:local-dir:{folder}"))


def test_a_folder_without_weights_is_refused_and_one_with_many_too(tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "c", made())
    (folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(ModelUnavailableError, match="expected open_clip_model.safetensors .* has no weights"):
        load(ModelRequest(model=f"open_clip:local-dir:{folder}"))
    for name in ("a.pt", "b.pt"):
        torch.save({}, folder / name)
    with pytest.raises(ModelUnavailableError, match="has 2 files of weights of other names; give --weights"):
        load(ModelRequest(model=f"open_clip:local-dir:{folder}"))


@pytest.mark.parametrize(
    ("model", "error", "expected"),
    [
        pytest.param("local-dir:none", ModelUnavailableError, 'no folder "none"', id="no folder"),
        pytest.param(
            "hf-hub:clip", ModelUnavailableError, "expected open_clip:hf-hub:OWNER/NAME", id="no owner"
        ),
    ],
)
def test_a_place_that_is_none_is_refused(model: str, error: type[ExportError], expected: str) -> None:
    with pytest.raises(error, match=expected):
        load(ModelRequest(model=f"open_clip:{model}"))


@pytest.mark.parametrize(
    ("change", "tower", "expected"),
    [
        pytest.param(lambda state: visual(state, ""), "text", "missing", id="no text tower"),
        pytest.param(lambda state: state | {"visual.proj": torch.zeros(3, 3)}, "image", "mis-shaped", id="width"),
        pytest.param(lambda state: state | {"extra": torch.zeros(1)}, "image", "1 unexpected: extra", id="extra"),
        pytest.param(
            lambda state: state | {"visual.positional_embedding": torch.zeros(15, 64)}, "image", "mis-shaped", id="grid"
        ),
        pytest.param(
            lambda state: state | {"positional_embedding": torch.zeros(8, 5)}, "image", "mis-shaped", id="text width"
        ),
    ],
)  # fmt: skip
def test_a_file_that_does_not_fit_is_refused(
    change: Callable[[ModelState], ModelState], tower: Tower, expected: str, tmp_path: Path
) -> None:
    torch.save(change(state_of(made())), tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=expected):
        load(ModelRequest(model="open_clip:tiny", weights=str(tmp_path / "w.pt"), tower=tower))


def test_a_size_that_patches_do_not_tile_is_refused(tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "c", made())
    request = ModelRequest(model=f"open_clip:local-dir:{folder}", image_size=33)
    with pytest.raises(UsageError, match="multiple of its patch size 8"):
        load(request)
    assert_equals(load(replace(request, image_size=32)), made())
