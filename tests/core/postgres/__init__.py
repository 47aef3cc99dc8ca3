"""Tests of `core.postgres`."""
