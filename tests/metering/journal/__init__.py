"""Tests of `metering.journal`."""
