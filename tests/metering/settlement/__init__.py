"""Tests of `metering.settlement`."""
