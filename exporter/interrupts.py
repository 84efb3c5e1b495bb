"""Ctrl-C, SIGTERM and SIGHUP: one way out for all of them, and blocks of code that they wait for.

Stands beside the road: `__main__` asks for it first, and whoever renames or removes folders has interrupts wait.
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
"""A signal so soon after another one is the same wish again, and must not stop the cleaning up."""

_AGAIN_S = 0.05

_latest = [-PATIENCE_S]


def interrupt_on_signals() -> None:
    """Have each signal raise KeyboardInterrupt in the main thread, so that whatever cleans up after Ctrl-C does.

    A signal that is ignored stays ignored: SIGHUP under `nohup`, Ctrl-C in the background of a shell. Processes that
    are forked end by SIGTERM and SIGHUP as any process does.
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
    """For the last moments of a process, in which nothing is left to clean up."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def interrupts_wait() -> Iterator[None]:
    """Have signals that arrive in the block wait for its end; for renames and removals that belong together.

    Outside of the main thread, which is the one that signals interrupt, it changes nothing.
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
    """One that reached a child before it has handlers of its own would be lost: Python forgets what was pending."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def _let_signals_go() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _as_in_any_process(heeded: list[signal.Signals]) -> None:
    for number in heeded:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    _let_signals_go()


def _raise_again(lost: Any) -> None:
    """An interrupt that came while a destructor ran, where nothing can be raised, comes again in a moment."""
    if not isinstance(lost.exc_value, KeyboardInterrupt):
        sys.__unraisablehook__(lost)
        return
    _latest[0] = -PATIENCE_S
    again = threading.Timer(_AGAIN_S, os.kill, (os.getpid(), signal.SIGINT))
    again.daemon = True
    again.start()
