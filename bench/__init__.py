"""Benchmarks: each a file that says what is measured, run by `python -m bench [name]`; figures go to bench/results."""
