"""Tests of `billing.access`."""
