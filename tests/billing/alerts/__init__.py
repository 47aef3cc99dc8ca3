"""Tests of `billing.alerts`."""
