"""The parts of `tools.gpu_check`.

`jobs` is the literal list of what is run, the most important first. `drive` goes down that list and asks a `worker`, a
process of its own, to make contenders (`forms`, `build`) and to time them in turns (`timing`, `kernels`). `results`
holds what came back, `figures` and `verdicts` derive ratios and targets from it, `table` prints it.
"""
