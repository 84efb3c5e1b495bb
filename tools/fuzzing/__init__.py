"""The parts of `tools.fuzz`: what is mutated (`kinds`), how (`mutations`), and what a command may answer (`oracle`)."""
