"""What every way of running a model does on the GPU of this machine: one command, one table, ten minutes.

    python -m tools.gpu_check --out results/
    python -m tools.gpu_check --out results-l/ --only vit_l,clip_l

`jobs` is the literal list of what is run, the most important first. `drive` goes down that list and asks a `worker`, a
process of its own, to build contenders (`build`, `engines`) and to time them in turns (`timing`). `results` holds what
came back, `figures` and `verdicts` derive ratios and targets from it, `table` prints it.
"""
