"""Failing stores on every supported version (`python -m tests.matrix`), and poolers."""
