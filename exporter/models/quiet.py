"""Keep the libraries' chatter off the terminal while they build and fetch; errors still come through."""

import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence logging, warnings and what libraries print, for the duration of a block.

    The handlers of the root logger are put back: open_clip logs through it, which would install one for good.
    """
    root, sink = logging.getLogger(), io.StringIO()
    handlers, disabled = list(root.handlers), root.manager.disable
    logging.disable(logging.CRITICAL)
    progress = _hub_progress_bars(shown=False)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
            warnings.simplefilter("ignore")
            yield
    finally:
        _hub_progress_bars(shown=progress)
        logging.disable(disabled)
        root.handlers[:] = handlers


def _hub_progress_bars(*, shown: bool) -> bool:
    """Show or hide the hub client's progress bars, if it is loaded; returns whether they were shown."""
    if "huggingface_hub" not in sys.modules:
        return True
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    before = not are_progress_bars_disabled()
    if shown and not before:
        enable_progress_bars()
    elif before and not shown:
        disable_progress_bars()
    return before
