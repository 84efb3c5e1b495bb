"""What every target is tested on."""

import pytest

from exporter.rewrite import RewrittenProgram
from tests.support.compiled import REQUESTS, captured_family


@pytest.fixture(scope="session")
def program() -> RewrittenProgram:
    """The timm ViT, r = 4 in each of its four blocks."""
    return captured_family("timm_vit").compile(REQUESTS["constant"])
