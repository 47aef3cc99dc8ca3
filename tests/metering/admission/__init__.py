"""Tests of `metering.admission`."""
