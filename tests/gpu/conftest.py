"""Everything in this folder needs an NVIDIA GPU, and is skipped where PyTorch sees none."""

from pathlib import Path

import pytest
import torch

from exporter.rewrite import RewrittenProgram
from tests.support.compiled import REQUESTS, captured_family

HERE = Path(__file__).parent
NO_GPU = pytest.mark.skip(reason="needs an NVIDIA GPU: PyTorch sees none")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = not torch.cuda.is_available()
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            if missing:
                item.add_marker(NO_GPU)


@pytest.fixture(scope="session")
def program() -> RewrittenProgram:
    return captured_family("timm_vit").compile(REQUESTS["constant"])
