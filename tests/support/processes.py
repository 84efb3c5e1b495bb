"""Whether processes have ended."""

import time
from collections.abc import Iterable

import psutil


def still_running(pids: Iterable[int], *, within_s: float = 10.0) -> list[int]:
    """Return those of some processes that have not ended in time."""
    deadline = time.monotonic() + within_s
    while (running := [pid for pid in pids if _is_alive(pid)]) and time.monotonic() < deadline:
        time.sleep(0.01)
    return running


def _is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
