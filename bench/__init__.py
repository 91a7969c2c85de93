"""Benchmarks: us and what a user would take instead, in turn, in one run."""
