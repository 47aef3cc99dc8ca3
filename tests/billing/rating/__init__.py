"""Tests of `billing.rating`."""
