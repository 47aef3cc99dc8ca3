"""Tests of `core.resilience`."""
