"""Tests of `metering.reports`."""
