"""Write a model into a repository of Triton, so that it is there whole or not at all.

REPOSITORY/MODEL/config.pbtxt     what Triton is told
REPOSITORY/MODEL/labels.txt       names of the classes, if they were given
REPOSITORY/MODEL/warmup/          rows of the bundle's sample, for one request before the server is ready
REPOSITORY/MODEL/1/               the engine; for the python backend with model.py, settings.json, and preprocessing/

Triton takes every folder of a repository for a model, hidden ones too, and does not start over one that is none. So the
model is made beside the repository, and moved in.
"""

import errno
import os
import shutil
from pathlib import Path

import numpy as np

from exporter.bundle import MANIFEST_FILE, PARTIAL, clear_leftovers, place_of, scratch_beside
from exporter.errors import UsageError
from exporter.models.preprocessing import image_modes, pixels, resize
from exporter.processes.interrupts import interrupts_wait
from exporter.records import canonical_json
from exporter.servers.sample import sample_files
from exporter.servers.triton.config import LABELS, WRITTEN_BY, TritonModel, config_text
from exporter.servers.triton.settings import engine_files, settings_of
from exporter.signature import Array

CONFIG = "config.pbtxt"
VERSION = "1"
WARMUP = "warmup"

_PREPROCESSING = "preprocessing"
_COPIED = (image_modes, pixels, resize)
_ENGINES = {"tensorrt": "model.plan", "onnxruntime": "model.onnx"}
"""What Triton's own backends call the engine."""


def write_model(model: TritonModel, repository: Path) -> Path:
    """Write a model into a repository, in place of the one of that name that `pack` wrote; the model's folder.

    Raises:
        UsageError: the repository cannot be written, or holds something else of that name.
    """
    repository = place_of(repository)
    place = repository / model.name
    _check(repository, place)
    clear_leftovers(repository)
    repository.parent.mkdir(parents=True, exist_ok=True)
    with scratch_beside(repository, PARTIAL) as scratch:
        new, old = scratch / "new", scratch / "old"
        _write(model, new)
        repository.mkdir(exist_ok=True)
        with interrupts_wait():
            if place.exists():
                _move(place, old)
            try:
                _move(new, place)
            except BaseException:
                if old.exists():
                    old.rename(place)
                raise
    return place


def _check(repository: Path, place: Path) -> None:
    if (repository / MANIFEST_FILE).exists():
        raise UsageError(f"{repository}: expected a folder for models, got a bundle; give another --out")
    if not os.path.lexists(place):
        return
    try:
        written = (place / CONFIG).read_text(encoding="utf-8").startswith(WRITTEN_BY)
    except (OSError, ValueError):
        written = False
    if not written or place.is_symlink():
        raise UsageError(
            f"{place}: expected nothing there, or a model that pack wrote; give another --name, or remove it yourself"
        )


def _move(folder: Path, place: Path) -> None:
    try:
        folder.rename(place)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        raise UsageError(
            f"{place.parent}: another file system is mounted here, and models are moved in from beside it; give a "
            "folder below it as --out"
        ) from None


def _write(model: TritonModel, folder: Path) -> None:
    version, warmup = folder / VERSION, folder / WARMUP
    version.mkdir(parents=True)
    warmup.mkdir()
    (folder / CONFIG).write_text(config_text(model), encoding="utf-8")
    if model.labels is not None:
        (folder / LABELS).write_text("".join(f"{each}\n" for each in model.labels), encoding="utf-8")
    for name, rows in _sample(model).items():
        (warmup / name).write_bytes(_serialised(rows))
    main = model.bundle.manifest.artifacts[model.target].file
    for name in engine_files(model.bundle, model.target):
        to = version / (_ENGINES.get(model.backend, name) if name == main else name)
        to.parent.mkdir(exist_ok=True)
        shutil.copyfile(model.bundle.path / name, to)
    if model.backend == "python":
        _write_python(model, version)


def _sample(model: TritonModel) -> dict[str, Array]:
    """The bundle's sample as requests hold it, by input."""
    if model.accept == "jpeg":
        return {model.inputs[0][0]: sample_files(model.bundle, model.target)}
    return model.bundle.signature.inputs_of(model.bundle.sample(model.target))


def _serialised(rows: Array) -> bytes:
    """The first row as Triton reads it from a file: a file of a request has its length in front."""
    if rows.dtype != np.object_:
        content: bytes = rows[0].tobytes()
        return content
    file: bytes = rows[0, 0]
    return len(file).to_bytes(4, "little") + file


def _write_python(model: TritonModel, version: Path) -> None:
    (version / "settings.json").write_bytes(canonical_json(settings_of(model)))
    code = Path(__file__).with_name("model.py").read_text(encoding="utf-8")
    (version / "model.py").write_text(_without_package(code), encoding="utf-8")
    if model.accept == "jpeg":
        copy = version / _PREPROCESSING
        copy.mkdir()
        (copy / "__init__.py").touch()
        for module in _COPIED:
            file = Path(str(module.__file__))
            (copy / file.name).write_text(
                _without_package(file.read_text(encoding="utf-8")), encoding="utf-8"
            )


def _without_package(code: str) -> str:
    """A module whose imports find the folder beside `model.py` in place of the package's."""
    return code.replace(f"exporter.models.{_PREPROCESSING}", _PREPROCESSING)
