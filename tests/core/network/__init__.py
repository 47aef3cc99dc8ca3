"""Tests of `core.network`."""
