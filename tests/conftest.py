"""Settings of every test run: one thread, since the models are tiny, and the same examples every time."""

import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("exporter", deadline=None, derandomize=True)
settings.load_profile("exporter")
