"""What libraries warn about while a model is loaded becomes notes, except what is not about the model."""

import logging
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import open_clip
import pytest
import timm
import torch
from torch import nn

from exporter.models import ModelRequest, aliases, load
from exporter.models.library_notes import LONGEST_NOTE, Listener, listening
from exporter.models.open_clip import source as open_clip_source
from exporter.models.quiet import quiet
from exporter.models.request import Tower
from exporter.models.timm import source as timm_source
from exporter.models.torchvision import source as torchvision_source

HERE = Path.cwd()


def heard_from(speak: Callable[[], object]) -> tuple[str, ...]:
    """The notes that are left of what a library says in a load."""
    with listening("timm") as heard, quiet():
        speak()
    return heard.notes


def _warn(
    message: str = "odd weights",
    category: type[Warning] = UserWarning,
    file: str | None = timm.__file__,
) -> Callable[[], None]:
    return lambda: warnings.warn_explicit(message, category, file or __file__, 1)


def _log(name: str, message: str = "odd weights", level: int = logging.WARNING) -> Callable[[], None]:
    return lambda: logging.getLogger(name).log(level, message)


def _log_through_root(message: str) -> Callable[[], None]:
    """As open_clip does: the record's file is all that tells the library."""
    record = logging.LogRecord("root", logging.WARNING, open_clip.__file__, 1, message, (), None)
    return lambda: logging.getLogger().handle(record)


@pytest.mark.parametrize(
    ("speak", "note"),
    [
        pytest.param(_warn(), "timm warns: odd weights", id="warning"),
        pytest.param(
            _warn(category=RuntimeWarning), "timm warns: odd weights", id="warning while it computes"
        ),
        pytest.param(_warn(file=None), "timm warns: odd weights", id="warning attributed to the caller"),
        pytest.param(_log("timm.models._builder"), "timm warns: odd weights", id="log of timm"),
        pytest.param(_log("transformers.x"), "transformers warns: odd weights", id="log of transformers"),
        pytest.param(_log("timm", level=logging.ERROR), "timm warns: odd weights", id="log of an error"),
        pytest.param(_log_through_root("odd"), "open_clip warns: odd", id="log through the root logger"),
        pytest.param(
            lambda: logging.getLogger("transformers").warning_once("odd"),  # type: ignore[attr-defined]
            "transformers warns: odd",
            id="log once per process",
        ),
        pytest.param(_warn("two\n  lines"), "timm warns: two lines", id="lines are joined"),
        pytest.param(_warn("\x1b[1mbold\x1b[0m"), "timm warns: bold", id="colours are dropped"),
        pytest.param(_warn("at 0x7f3a5c0012f0"), "timm warns: at 0x...", id="addresses are dropped"),
        pytest.param(
            _warn("no '/home/me/w.bin', so."), "timm warns: no 'w.bin', so.", id="of a path the last name"
        ),
        pytest.param(
            _warn("see https://huggingface.co/docs/x and a/b"),
            "timm warns: see https://huggingface.co/docs/x and a/b",
            id="addresses on the web stay",
        ),
        pytest.param(
            _warn(f"in {HERE}/my model/w.bin"), "timm warns: in my model/w.bin", id="working folder"
        ),
        pytest.param(
            _warn(f"in {tempfile.gettempdir()}/a b.bin"), "timm warns: in a b.bin", id="temporary folder"
        ),
    ],
)
def test_a_warning_about_the_model_becomes_a_note_each_time(speak: Callable[[], object], note: str) -> None:
    assert [heard_from(speak), heard_from(speak)] == [(note,), (note,)]


@pytest.mark.parametrize(
    "speak",
    [
        pytest.param(_warn(category=DeprecationWarning), id="deprecation"),
        pytest.param(_warn(category=FutureWarning), id="future change"),
        pytest.param(_warn(category=ResourceWarning), id="open file"),
        pytest.param(
            _warn(file="/x/site-packages/huggingface_hub/file_download.py"), id="warning of a download"
        ),
        pytest.param(_log("huggingface_hub.utils"), id="log of a download"),
        pytest.param(_log("urllib3.connectionpool"), id="log of a connection"),
        pytest.param(_log("timm", level=logging.INFO), id="information"),
        pytest.param(
            _log_through_root("No pretrained weights loaded for model 'x'. Model initialized randomly."),
            id="harmless by name",
        ),
        pytest.param(
            _warn("odd tensor (Triggered internally at /pytorch/aten/x.cpp:1.)"),
            id="once per process from C++",
        ),
        pytest.param(lambda: print("odd weights"), id="print"),
        pytest.param(lambda: print("odd weights", file=sys.stderr), id="print to stderr"),
    ],
)
def test_what_is_not_about_the_model_is_no_note(
    speak: Callable[[], object], capfd: pytest.CaptureFixture[str]
) -> None:
    assert heard_from(speak) == ()
    assert capfd.readouterr() == ("", "")


def test_a_harmless_message_of_another_library_is_a_note() -> None:
    message = "No pretrained weights loaded for model 'x'."
    assert heard_from(_log("timm", message)) == (f"timm warns: {message}",)


def test_notes_come_once_and_are_cut() -> None:
    long = "word " * 100
    (first, second) = heard_from(lambda: [_log("timm", text)() for text in ("a", long, "a")])
    assert first == "timm warns: a"
    assert second.endswith("...")
    assert len(second.removeprefix("timm warns: ")) == LONGEST_NOTE


def test_a_load_hears_its_source_and_adds_to_its_own_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    original = timm.create_model

    def create_model(*args: object, **arguments: object) -> nn.Module:
        logging.getLogger("timm.models").warning("odd weights in %s/w.bin", tempfile.gettempdir())
        return original(*args, **arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(timm, "create_model", create_model)
    assert load(ModelRequest(model="timm:test_vit", weights="random")).notes == (
        "timm warns: odd weights in w.bin",
    )


def test_logging_is_left_as_it_was() -> None:
    root, library = logging.getLogger(), logging.getLogger("transformers")

    def state() -> list[object]:
        return [
            (each, each.level, each.propagate, each.disabled, each.handlers, [*each.handlers])
            for each in (root, library)
        ] + [root.manager.disable, warnings.filters[:]]

    before = state()
    heard_from(lambda: library.setLevel(logging.ERROR))
    assert state() == before


def test_outside_a_load_nothing_is_heard(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet():
        _log("transformers")()
        _warn()()
    assert capfd.readouterr() == ("", "")
    assert isinstance(Listener("timm").notes, tuple)


@pytest.mark.parametrize("model", ["vit_digits", "clip_digits"])
def test_no_shipped_model_has_a_note(model: str) -> None:
    assert load(ModelRequest(model=model)).notes == ()


# One of each kind; the others only have more blocks or are wider.
BUILT = {
    (alias.source, alias.note): name for name, alias in reversed([*aliases().items()]) if alias.blocks == 12
}


@pytest.mark.parametrize("model", [*BUILT.values(), "torchvision:vit_b_32"])
def test_no_alias_has_a_note(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def on_meta(build: Callable[[], nn.Module], _seed: int) -> nn.Module:
        with torch.device("meta"):
            return build()

    for source in (timm_source, torchvision_source, open_clip_source):
        monkeypatch.setattr(source, "build_random", on_meta)
        monkeypatch.setattr(source, "sha256_of", lambda _state: "")
    assert load(ModelRequest(model=model, weights="random")).notes == ()


@pytest.mark.parametrize("tower", ["image", "text"])
@pytest.mark.parametrize("family", ["CLIPModel", "SiglipModel"])
def test_transformers_warns_of_nothing_when_one_of_two_towers_is_loaded(
    family: str, tower: Tower, hf_model: Callable[[str], tuple[nn.Module, Path]]
) -> None:
    _, folder = hf_model(family)
    notes = load(ModelRequest(model=f"hf:{folder}", tower=tower)).notes
    assert [note for note in notes if "warns" in note] == []
