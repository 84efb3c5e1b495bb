"""Import matplotlib without a trace: left to itself it makes folders in the user's home folder.

Used by `plots`, before its first chart. A program that imported matplotlib before, or that says with MPLCONFIGDIR where
its folder is, has decided for itself.
"""

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_FOLDER, _SETTINGS = "MPLCONFIGDIR", "MATPLOTLIBRC"


def import_matplotlib() -> None:
    """Import what charts need, with a temporary folder in place of matplotlib's own for as long as the process lives.

    A settings file of the user's own is found all the same, for what else the program may draw, and so is what
    matplotlib knows about the fonts here. The environment is as it was when this returns.
    """
    if "matplotlib" in sys.modules or os.environ.get(_FOLDER):
        return
    folder = Path(tempfile.mkdtemp(prefix="exporter-matplotlib-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for known in sorted(_xdg("XDG_CACHE_HOME", ".cache").glob("fontlist-*.json")):
        shutil.copy(known, folder)
    settings = _xdg("XDG_CONFIG_HOME", ".config") / "matplotlibrc"
    changed = {_FOLDER: str(folder)}
    if settings.is_file() and not os.environ.get(_SETTINGS) and not Path("matplotlibrc").is_file():
        changed[_SETTINGS] = str(settings)
    with _environment(changed):
        import matplotlib.figure
        import matplotlib.font_manager
        import matplotlib.style  # noqa: F401


def _xdg(variable: str, otherwise: str) -> Path:
    """Matplotlib's own folder below one of the user's base directories, whether or not it is there."""
    given = os.environ.get(variable)
    return Path(given or os.path.join(os.path.expanduser("~"), otherwise)) / "matplotlib"


@contextmanager
def _environment(changed: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
