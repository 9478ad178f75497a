"""Benchmarks: each prints a table and writes JSON; none is part of the test run."""
