"""How many workers a shard has ended, kept as empty files, since none of them can say it itself.

A worker marks a shard before it starts with it and removes the marks when it has written it. So a worker that
finds three marks knows that three others are gone, whichever executor had started them.
"""

import shutil
from pathlib import Path

MOST = 3

_FOLDER = ".embed-attempts"


def begin(out: Path, shard: int) -> bool:
    """Mark a shard as begun; false if it has ended as many workers as it may."""
    folder = out / _FOLDER
    folder.mkdir(exist_ok=True)
    for number in range(MOST):
        try:
            (folder / f"{shard:06}-{number}").touch(exist_ok=False)
        except FileExistsError:
            continue
        return True
    return False


def end(out: Path, shard: int) -> None:
    """Remove the marks of a shard that is written."""
    for number in range(MOST):
        (out / _FOLDER / f"{shard:06}-{number}").unlink(missing_ok=True)


def forget(out: Path) -> None:
    """Remove all marks."""
    shutil.rmtree(out / _FOLDER, ignore_errors=True)
