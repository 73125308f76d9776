"""Benchmarks: each prints the ratio to a physical floor that is measured in the same run."""
