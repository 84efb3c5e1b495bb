"""Keep the libraries' chatter off the terminal while they build and fetch; errors still come through.

While a model is loaded, a `Listener` hears the warnings that are silenced.
"""

import contextlib
import io
import sys
import warnings
from collections.abc import Iterator

from exporter.models.library_notes import Listener, listener, logging_to


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence logging, warnings and what libraries print, for the duration of a block."""
    heard, sink = listener() or Listener(""), io.StringIO()
    progress = _hub_progress_bars(shown=False)
    try:
        with (
            logging_to(heard),
            _warnings_to(heard),
            contextlib.redirect_stdout(sink),
            contextlib.redirect_stderr(sink),
        ):
            yield
    finally:
        _hub_progress_bars(shown=progress)


@contextlib.contextmanager
def _warnings_to(heard: Listener) -> Iterator[None]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        heard.hear_warning(warning)


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
