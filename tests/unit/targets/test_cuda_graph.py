"""A recording without a GPU: what it keeps alive."""

import gc
import weakref
from contextlib import nullcontext
from functools import partial
from unittest.mock import MagicMock

import pytest
import torch

from exporter.targets.cuda_graph import recorded


def test_recording_keeps_what_the_recorded_call_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph knows addresses only: inputs and parameters that nothing holds would be read after they are freed."""
    graph = MagicMock()
    for name in ("Stream", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, MagicMock())
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)
    monkeypatch.setattr(torch.cuda, "graph", nullcontext)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: graph)
    weight = torch.ones(2)
    alive = weakref.ref(weight)
    call = partial(torch.mul, weight, 2)
    replay = recorded(call)
    del weight, call
    gc.collect()

    results = replay()

    assert alive() is not None
    assert isinstance(results, torch.Tensor) and results.tolist() == [2.0, 2.0]
    graph.replay.assert_called_once_with()
    del replay
    gc.collect()
    assert alive() is None
