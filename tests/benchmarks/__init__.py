"""Benchmarks: CPU time and ratios within one run. Absolute figures of a shared machine mean nothing."""
