"""How `torch.export` is called."""

import pytest
import torch

from exporter.capture import export_graph


@pytest.mark.parametrize("before", [False, True])
def test_nodes_name_no_files_and_the_setting_of_torch_is_put_back(
    before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.fx.config, "do_not_emit_stack_traces", before)

    exported = export_graph(torch.nn.Linear(2, 2), torch.zeros(2, 2), dynamic_batch=False)

    assert not any(node.stack_trace for node in exported.graph.nodes)
    assert torch.fx.config.do_not_emit_stack_traces is before
