"""Tests of `metering.adjustments`."""
