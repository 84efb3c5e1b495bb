"""Training in one thread: two that share a core with another process wait for each other."""

import pytest


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tools.train_vit_digits.THREADS", 1)
