"""Tests of `core.tenancy`."""
