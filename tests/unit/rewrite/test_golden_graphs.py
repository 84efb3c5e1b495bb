"""The rewritten graph of a very small ViT as text, compared with files.

After an intended change of a graph, write them again and read the difference:

    python -m tests.unit.rewrite.test_golden_graphs
"""

from dataclasses import replace
from pathlib import Path

import pytest

from exporter.anatomy import examine
from exporter.capture import capture
from exporter.forms import Forms
from exporter.reduction import method
from exporter.rewrite import RewriteOptions, rewrite
from exporter.rewrite.graph_text import graph_text
from exporter.schedule import ScheduleRequest, plan
from tests.unit.rewrite.small_models import Block, SmallVit, images, seeded

FOLDER = Path(__file__).parent / "golden"
OPTIONS = RewriteOptions(method=method("tome"), batch=2)
TARGET_FORMS = Forms(mask="folded", selection="one-hot")

# by name of the file: the tokens merged in each of two blocks, and options
GRAPHS = {
    "dense": ((0, 0), OPTIONS),
    "tome": ((4, 0), OPTIONS),
    "pitome_fp16_target_forms": (
        (4, 0),
        replace(
            OPTIONS,
            method=method("pitome"),
            method_options={"bipartite": "none"},
            precision="fp16",
            forms=TARGET_FORMS,
        ),
    ),
}


def text_of(name: str) -> str:
    """Return the graph of one case as text, as it is captured again."""
    merged, options = GRAPHS[name]
    program = capture(seeded(SmallVit(Block(), Block())), images())
    schedule = plan(ScheduleRequest(r_per_layer=merged), examine(program.graph_module).geometry)
    return graph_text(rewrite(program, schedule, options).merging)


@pytest.mark.parametrize("name", GRAPHS)
def test_graph_is_what_the_file_says(name: str) -> None:
    assert text_of(name) == (FOLDER / f"{name}.txt").read_text("utf-8")


if __name__ == "__main__":
    for each in GRAPHS:
        (FOLDER / f"{each}.txt").write_text(text_of(each), encoding="utf-8")
