"""Tests of `metering.quota`."""
