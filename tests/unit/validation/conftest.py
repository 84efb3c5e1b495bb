"""A place for tiny images."""

from pathlib import Path

import pytest

from tests.support.image_trees import Tree, colour


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Makes a folder of PNG files; the n-th is of colour n."""

    def make(*names: str, called: str = "photos") -> Path:
        for number, name in enumerate(names):
            path = tmp_path / called / name
            path.parent.mkdir(parents=True, exist_ok=True)
            colour(number).save(path, "PNG")
        return tmp_path / called

    return make
