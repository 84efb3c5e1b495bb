"""The parts of `tools.gpu_check`.

`contenders` is the list, the most important first. `prepare` writes a program or model for each of them (`packed`),
with shapes in place of weights: those are drawn (`draw`), and what the compiler makes of them is recorded (`derive`).
`drive` goes down the list on the GPU; a process of its own (`worker`) loads, compares and times, and lists `kernels`;
others compile meanwhile (`builds`).
`figures` derives ratios and verdicts, and `page` prints them.
"""
