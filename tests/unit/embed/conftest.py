"""A bundle of a tiny model, a folder of images of several sizes, and what a plain loop says about them."""

from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from exporter.bundle import Bundle
from exporter.embed import EmbedRequest
from exporter.embed.local import LocalExecutor
from exporter.embed.parquet import Footer
from exporter.embed.plan import Task
from exporter.embed.worker import Worker
from exporter.models import preprocess_image
from tests.support.serving_bundle import serving_bundle

Ask = Callable[..., EmbedRequest]


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Shared, so not to be changed."""
    return serving_bundle(tmp_path_factory)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven images, in the order of their names; the fourth is none."""
    folder = tmp_path_factory.mktemp("embed") / "photos"
    generator = np.random.default_rng(3)
    for number in range(7):
        path = folder / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (30 + number, 40, 3), dtype=np.uint8)).save(path)
    (folder / "3.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="session")
def expected(bundle: Bundle, photos: Path) -> dict[str, Any]:
    """By name, the vector that the engine gives for each image alone."""
    preprocess, run = bundle.preprocess(), bundle.runner("onnx")
    assert preprocess is not None
    readable = [path for path in sorted(photos.iterdir()) if path.name != "3.png"]
    inputs = np.stack([preprocess_image(Image.open(path), preprocess) for path in readable])
    logits = run(inputs)["logits"]
    return {path.name: vector for path, vector in zip(readable, logits, strict=True)}


@pytest.fixture
def ask(bundle: Bundle, photos: Path, tmp_path: Path) -> Ask:
    """A request for shards of three images, one worker, and as many errors as there may be."""

    def request(**changed: Any) -> EmbedRequest:
        given = {
            "bundle": bundle.path,
            "data": str(photos),
            "out": tmp_path / "out",
            "target": "onnx",
            "shard": 3,
            "workers": 1,
            "max_errors": "100%",
        }
        return EmbedRequest(**{**given, **changed})

    return request


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Embed without starting a process."""

    def embed(executor: LocalExecutor, tasks: Iterator[Task], workers: int) -> Generator[Footer]:
        worker = Worker(executor.setup)
        yield from map(worker.embed, tasks)

    monkeypatch.setattr("exporter.embed.run.embed_with", embed)
