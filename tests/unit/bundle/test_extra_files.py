"""Only what a manifest lists is of its bundle: links may lead there; the rest is not read, and not lost."""

import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from exporter.bundle import Bundle, amend, check_amendable, load_bundle, seal, stage_bundle
from exporter.errors import BundleError, UsageError

SampleBundle = Callable[[Path], Path]

EXTRAS = [
    ".DS_Store",
    "README.md",
    ".gitattributes",
    ".git/HEAD",
    ".cache/huggingface/download/model.onnx.metadata",
    "openvino/notes.txt",
    "two\nlines",
]


def put(bundle: Path, name: str) -> Path:
    (bundle / name).parent.mkdir(parents=True, exist_ok=True)
    (bundle / name).write_text(f"mine: {name}", encoding="utf-8")
    return bundle / name


@pytest.fixture
def extended(bundle_path: Path) -> Path:
    """A bundle with files that people and tools put into it; one may not be read, one is a pipe, one a link."""
    for name in EXTRAS:
        put(bundle_path, name)
    os.mkfifo(bundle_path / "pipe")
    (bundle_path / "link").symlink_to("nowhere")
    (bundle_path / "round").symlink_to("round")
    return bundle_path


def mine(bundle: Path) -> dict[str, str]:
    return {name: (bundle / name).read_text(encoding="utf-8") for name in EXTRAS}


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        pytest.param(".DS_Store", ".DS_Store", id="desktop"),
        pytest.param("README.md", "README.md", id="readme"),
        pytest.param(".git/objects/ab/cd", ".git/", id="repository"),
        pytest.param("openvino/extra.bin", "openvino/extra.bin", id="beside an engine"),
        pytest.param("new/extra.bin", "new/", id="folder"),
        pytest.param("two\nlines", r"two\nlines", id="control character"),
    ],
)
def test_an_extra_file_is_left_alone_and_named(bundle_path: Path, name: str, shown: str) -> None:
    put(bundle_path, name)
    (note,) = load_bundle(bundle_path).notes
    assert note == f"not of this bundle, and neither checked nor read: {shown}"


def test_a_bundle_without_extra_files_has_no_note_and_of_many_a_few_are_named(bundle_path: Path) -> None:
    assert load_bundle(bundle_path).notes == ()
    for number in range(30):
        put(bundle_path, f"{number:02}")
    assert load_bundle(bundle_path).notes[0].endswith("read: 00, 01, 02, 03, 04 and 25 more")


def as_in_a_cache(bundle: Path, blobs: Path) -> None:
    """Every file a link to one that is named after its content, as the hub's cache has it."""
    blobs.mkdir()
    for number, file in enumerate(path for path in sorted(bundle.rglob("*")) if path.is_file()):
        shutil.move(file, blobs / str(number))
        file.symlink_to(os.path.relpath(blobs / str(number), file.parent))


def test_files_that_are_links_are_those_that_they_lead_to(bundle_path: Path, tmp_path: Path) -> None:
    plain = load_bundle(bundle_path)
    as_in_a_cache(bundle_path, tmp_path / "blobs")
    linked = load_bundle(bundle_path)
    assert linked == plain
    assert linked.sample().keys() == {"images", "logits"}
    file = bundle_path / "model.onnx"
    file.resolve().write_bytes(b"another engine")
    with pytest.raises(BundleError, match=r"model\.onnx has changed"):
        load_bundle(bundle_path)


def test_a_linked_folder_inside_is_followed(bundle_path: Path, tmp_path: Path) -> None:
    shutil.move(bundle_path / "openvino", tmp_path / "aside")
    (tmp_path / "aside/extra").touch()
    (bundle_path / "openvino").symlink_to(tmp_path / "aside")
    assert load_bundle(bundle_path).notes == ()


def folder(file: Path) -> None:
    file.mkdir()


def listening(file: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server, pytest.MonkeyPatch.context() as patch:
        patch.chdir(file.parent)  # such names may not be long
        server.bind(file.name)


@pytest.mark.parametrize("name", ["model.onnx", "manifest.json", "openvino/model.bin"])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(folder, "expected a file, got a folder", id="folder"),
        pytest.param(os.mkfifo, "expected a file, got a pipe", id="pipe"),
        pytest.param(listening, "expected a file, got a socket", id="socket"),
        pytest.param(lambda file: file.symlink_to("/dev/zero"), "expected a file, got a device", id="device"),
        pytest.param(lambda file: file.symlink_to(file.name), "leads back to itself", id="loop"),
        pytest.param(
            lambda file: file.symlink_to("gone"), "a link to something that is not there", id="dangling"
        ),
        pytest.param(
            lambda file: file.symlink_to("."), "expected a file, got a folder", id="link to a folder"
        ),
    ],
)
def test_a_listed_name_that_is_no_file_is_refused(
    bundle_path: Path, name: str, make: Callable[[Path], None], message: str
) -> None:
    (bundle_path / name).unlink()
    make(bundle_path / name)
    with pytest.raises(BundleError, match=message) as caught:
        load_bundle(bundle_path)
    assert name in str(caught.value)


def test_amending_loses_no_file_and_changes_none(extended: Path) -> None:
    readme = (extended / "README.md").stat()

    amended = amend(load_bundle(extended), {"bench.json": b"{}\n"})

    assert mine(extended) == {name: f"mine: {name}" for name in EXTRAS}
    assert (extended / "README.md").stat().st_ino == readme.st_ino
    assert (extended / "pipe").is_fifo()
    assert os.readlink(extended / "link") == "nowhere"
    assert load_bundle(extended) == amended
    assert not set(amended.manifest.files) & set(EXTRAS)
    assert os.listdir(extended.parent) == [extended.name]


def test_files_are_taken_along_where_there_are_no_hard_links(
    bundle_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    for name in EXTRAS:
        put(bundle_path, name)
    monkeypatch.setattr("os.link", refuse)
    amend(load_bundle(bundle_path), {"bench.json": b"{}\n"})
    assert mine(bundle_path) == {name: f"mine: {name}" for name in EXTRAS}
    os.mkfifo(bundle_path / "pipe")

    with pytest.raises(UsageError, match="pipe is not of the bundle and cannot be taken along"):
        amend(load_bundle(bundle_path), {"bench.json": b"[]\n"})

    assert (bundle_path / "bench.json").read_bytes() == b"{}\n"
    assert (bundle_path / "pipe").is_fifo()


def replaced(path: Path, bundle: Bundle, **files: bytes) -> None:
    with stage_bundle(path, force=True) as staging:
        (staging / "model.onnx").write_bytes(b"a new engine")
        (staging / "openvino").mkdir()
        (staging / "openvino/model.xml").write_bytes(b"<new/>")
        for name, content in files.items():
            (staging / name).write_bytes(content)
        seal(staging, bundle.manifest)


def test_force_replaces_only_what_a_bundle_wrote(extended: Path) -> None:
    replaced(extended, load_bundle(extended))
    assert (extended / "model.onnx").read_bytes() == b"a new engine"
    assert not (extended / "recipe.yaml").exists()
    assert mine(extended) == {name: f"mine: {name}" for name in EXTRAS}
    load_bundle(extended)


def test_force_does_not_replace_a_users_file_of_a_new_name(extended: Path) -> None:
    put(extended, "notes")
    before = (extended / "model.onnx").read_bytes()
    with pytest.raises(UsageError, match="notes is not of the bundle that lies there and would be replaced"):
        replaced(extended, load_bundle(extended), notes=b"the exporter's")
    assert (extended / "model.onnx").read_bytes() == before
    assert (extended / "notes").read_text(encoding="utf-8") == "mine: notes"


OURS = {"schema_version": 1, "digest": "changed", "files": {"index.html": "0" * 64}}


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"name": "my web page"}',
        '{"files": {"index.html": "0"}}',
        "[" * 10**5,
        *(
            json.dumps({**OURS, **other})
            for other in (
                {"schema_version": "1"},
                {"schema_version": True},
                {"digest": None},
                {"files": ["index.html"]},
                {"files": {"../x": "0" * 64}},
                {"files": {"index.html": "/index.html"}},
            )
        ),
    ],
)
def test_force_refuses_a_folder_whose_manifest_is_not_a_bundles(tmp_path: Path, content: str) -> None:
    put(tmp_path / "page", "index.html")
    (tmp_path / "page/manifest.json").write_text(content, encoding="utf-8")
    with (
        pytest.raises(UsageError, match="only a bundle or an empty folder, and this is neither"),
        stage_bundle(tmp_path / "page", force=True),
    ):
        pass
    assert (tmp_path / "page/index.html").exists()


def test_force_replaces_a_bundle_whose_manifest_was_changed(bundle_path: Path) -> None:
    bundle = load_bundle(bundle_path)
    (bundle_path / "manifest.json").write_text(json.dumps({**OURS, "files": dict(bundle.manifest.files)}))
    replaced(bundle_path, bundle)
    load_bundle(bundle_path)


def test_a_folder_of_the_users_under_a_listed_name_is_not_replaced(bundle_path: Path) -> None:
    bundle = load_bundle(bundle_path)
    (bundle_path / "model.onnx").unlink()
    put(bundle_path, "model.onnx/mine")
    with pytest.raises(UsageError, match=r"model\.onnx/ is not of the bundle"):
        replaced(bundle_path, bundle)
    assert (bundle_path / "model.onnx/mine").exists()


def test_a_measurement_by_hand_is_refused_before_any_work(bundle_path: Path) -> None:
    put(bundle_path, "validation.json")
    with pytest.raises(UsageError, match=r"validation\.json is not of the bundle"):
        check_amendable(load_bundle(bundle_path))


def test_a_linked_bundle_is_amended_where_it_lies(bundle_path: Path, tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to("bundle")
    bundle = load_bundle(tmp_path / "latest")
    check_amendable(bundle)
    amend(bundle, {"bench.json": b"{}\n"})
    assert (tmp_path / "latest").is_symlink()
    assert "bench.json" in load_bundle(bundle_path).manifest.files


def test_links_to_single_files_stay_links_when_amended(bundle_path: Path, tmp_path: Path) -> None:
    as_in_a_cache(bundle_path, tmp_path / "blobs")
    amend(load_bundle(bundle_path), {"bench.json": b"{}\n"})
    assert (bundle_path / "model.onnx").is_symlink()
    assert "bench.json" in load_bundle(bundle_path).manifest.files


def test_files_in_a_linked_folder_survive_an_amendment(bundle_path: Path, tmp_path: Path) -> None:
    shutil.move(bundle_path / "openvino", tmp_path / "deep-aside")
    shutil.move(tmp_path / "deep-aside/model.bin", tmp_path / "blob")
    (tmp_path / "deep-aside/model.bin").symlink_to("../blob")
    (bundle_path / "openvino").symlink_to(tmp_path / "deep-aside")
    amend(load_bundle(bundle_path), {"bench.json": b"{}\n"})
    assert load_bundle(bundle_path).notes == ()
