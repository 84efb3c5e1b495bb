"""AOTInductor: a program compiled ahead of time into a package that PyTorch loads without tracing anything.

A package is native code. It runs on the kind of machine that it was compiled for, and `machine` is where that is held.
"""
