"""Ctrl-C, SIGTERM and SIGHUP: all of them raise KeyboardInterrupt, and blocks of code can delay them.

`__main__` installs the handlers first; code that renames or removes folders delays interrupts meanwhile.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

PATIENCE_S = 5.0
"""A second signal within this time is ignored, so that it does not stop the clean-up."""

_AGAIN_S = 0.05

_latest = [-PATIENCE_S]


def interrupt_on_signals() -> None:
    """Have each signal raise KeyboardInterrupt in the main thread, so that the clean-up after Ctrl-C runs.

    A signal that is ignored stays ignored: SIGHUP under `nohup`, Ctrl-C in the background of a shell. Forked processes
    get the default handlers back: SIGTERM and SIGHUP end them.
    """
    heeded = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    for number in heeded:
        signal.signal(number, _interrupt)
    os.register_at_fork(
        before=_hold_signals,
        after_in_parent=_let_signals_go,
        after_in_child=lambda: _as_in_any_process(heeded),
    )
    sys.unraisablehook = _raise_again


def ignore_signals() -> None:
    """Ignore all of them: at the end of a process, when nothing is left to clean up."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def leave_terminal_to_parent() -> None:
    """Ignore Ctrl-C and hang-up, which reach every process of a terminal: the parent ends its forked children."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """Delay signals that arrive in the block until its end; for renames and removals that belong together.

    Does nothing outside the main thread, the only one that signals interrupt.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        if handler not in (signal.SIG_IGN, signal.SIG_DFL, None):
            signal.signal(number, lambda given, _: arrived.append(given))
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)
        if arrived:
            signal.raise_signal(arrived[0])


def _interrupt(number: int, frame: FrameType | None) -> None:
    now = time.monotonic()
    if now - _latest[0] >= PATIENCE_S:
        _latest[0] = now
        raise KeyboardInterrupt


def _hold_signals() -> None:
    """Block signals: one that reached a child before it has its own handlers would be lost."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def _let_signals_go() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _as_in_any_process(heeded: list[signal.Signals]) -> None:
    for number in heeded:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    _let_signals_go()


def _raise_again(lost: Any) -> None:
    """Repeat an interrupt that came while a destructor ran, where nothing can be raised."""
    if not isinstance(lost.exc_value, KeyboardInterrupt):
        sys.__unraisablehook__(lost)
        return
    _latest[0] = -PATIENCE_S
    again = threading.Timer(_AGAIN_S, os.kill, (os.getpid(), signal.SIGINT))
    again.daemon = True
    again.start()
