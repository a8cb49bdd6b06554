"""Benchmarks: one command a table, ``python -m benchmarks.<name>``. Results with the machine's description go to ``results/``."""
