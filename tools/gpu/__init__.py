"""The parts of `tools.gpu_check`: contenders for the race of `exporter.benchmark`, on a GPU.

`jobs` is the literal list of contenders, the most important first. `build`, a process of its own, turns each of them
into something that can be raced (`programs`) and compares its outputs with fp32 eager PyTorch. `drive` races what was
built, job by job, within the time; `figures` derives ratios and verdicts, and `page` prints them.
"""
