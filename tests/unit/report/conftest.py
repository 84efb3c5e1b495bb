"""Bundles for reports."""

from collections.abc import Callable
from pathlib import Path

import pytest

from exporter.bundle import Bundle
from tests.support.report_bundle import make_bundle

Make = Callable[..., Bundle]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    return lambda **options: make_bundle(tmp_path / "bundle", **options)
