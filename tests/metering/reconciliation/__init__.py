"""Tests of `metering.reconciliation`."""
