"""Tests of `metering.tags`."""
