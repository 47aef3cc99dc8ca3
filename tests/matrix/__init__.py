"""Failing stores on every version that is supported (`python -m tests.matrix`), and the poolers that people have."""
