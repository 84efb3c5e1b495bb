"""Settings of every test run: one thread, since the models are tiny, and the same examples every time.

A shell starts what runs in its background with Ctrl-C ignored, and so would every command that a test starts and
interrupts: this process takes Ctrl-C back.
"""

import signal

import torch
from hypothesis import settings

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

torch.set_num_threads(1)
settings.register_profile("exporter", deadline=None, derandomize=True)
settings.load_profile("exporter")
